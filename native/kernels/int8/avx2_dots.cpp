#include "kernels/int8/generic.h"

namespace fastcnn {

const Int8Kernels& int8_kernels_avx2_dots() {
  static const Int8Kernels kernels = make_int8<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
