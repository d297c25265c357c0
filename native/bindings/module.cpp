#include <nanobind/nanobind.h>

#include "bindings/bindings.h"

NB_MODULE(_native, m) {
  m.doc() = "Native kernels and executor of fastcnn";
  bind_runtime(m);
  bind_codec(m);
  bind_training(m);
}
