#include "kernels/spectral/generic.h"

namespace fastcnn {

const SpectralKernels& spectral_kernels_avx2() {
  static const SpectralKernels kernels = make_spectral<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
