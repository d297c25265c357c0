#include "kernels/peak/generic.h"

namespace fastcnn {

const PeakKernels& peak_kernels_avx2() {
  static const PeakKernels kernels = make_peak<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
