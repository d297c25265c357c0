#include "kernels/spectral/generic.h"

namespace fastcnn {

const SpectralKernels& spectral_kernels_scalar() {
  static const SpectralKernels kernels = make_spectral<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
