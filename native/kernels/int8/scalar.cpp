#include "kernels/int8/generic.h"

namespace fastcnn {

const Int8Kernels& int8_kernels_scalar() {
  static const Int8Kernels kernels = make_int8<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
