#include "kernels/unpack/generic.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_avx512_emulated() {
  static const UnpackKernels kernels = make_unpack<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
