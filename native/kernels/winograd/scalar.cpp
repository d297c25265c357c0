#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradKernels& winograd_kernels_scalar() {
  static const WinogradKernels kernels = make_winograd<8, 2>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
