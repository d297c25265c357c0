#include "kernels/peak/generic.h"

namespace fastcnn {

const PeakKernels& peak_kernels_scalar() {
  static const PeakKernels kernels = make_peak<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
