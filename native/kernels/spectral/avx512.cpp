#include "kernels/spectral/generic.h"

namespace fastcnn {

const SpectralKernels& spectral_kernels_avx512() {
  static const SpectralKernels kernels = make_spectral<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
