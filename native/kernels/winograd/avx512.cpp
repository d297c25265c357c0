#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradKernels& winograd_kernels_avx512() {
  static const WinogradKernels kernels = make_winograd<16, 14>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
