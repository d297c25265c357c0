#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradKernels& winograd_kernels_avx2() {
  static const WinogradKernels kernels = make_winograd<8, 6>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
