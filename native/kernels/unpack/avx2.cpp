#include "kernels/unpack/generic.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_avx2() {
  static const UnpackKernels kernels = make_unpack<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
