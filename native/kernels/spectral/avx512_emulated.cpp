#include "kernels/spectral/generic.h"

namespace fastcnn {

const SpectralKernels& spectral_kernels_avx512_emulated() {
  static const SpectralKernels kernels = make_spectral<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
