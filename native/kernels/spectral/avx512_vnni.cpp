#include "kernels/spectral/generic.h"

namespace fastcnn {

const SpectralKernels& spectral_kernels_avx512_vnni() {
  static const SpectralKernels kernels = make_spectral<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
