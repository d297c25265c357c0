#include "kernels/unpack/generic.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_avx512_vnni() {
  static const UnpackKernels kernels = make_unpack<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
