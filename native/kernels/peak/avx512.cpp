#include "kernels/peak/generic.h"

namespace fastcnn {

const PeakKernels& peak_kernels_avx512() {
  static const PeakKernels kernels = make_peak<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
