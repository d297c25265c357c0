#include "kernels/unpack/generic.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_scalar() {
  static const UnpackKernels kernels = make_unpack<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
