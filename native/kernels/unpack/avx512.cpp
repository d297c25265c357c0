#include "kernels/unpack/generic.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_avx512() {
  static const UnpackKernels kernels = make_unpack<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
