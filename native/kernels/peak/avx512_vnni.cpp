#include "kernels/peak/generic.h"

namespace fastcnn {

const PeakKernels& peak_kernels_avx512_vnni() {
  static const PeakKernels kernels = make_peak<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
