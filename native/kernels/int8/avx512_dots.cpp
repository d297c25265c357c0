#include "kernels/int8/generic.h"

namespace fastcnn {

const Int8Kernels& int8_kernels_avx512_dots() {
  static const Int8Kernels kernels = make_int8<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
