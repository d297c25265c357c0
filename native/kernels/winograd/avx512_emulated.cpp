#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradKernels& winograd_kernels_avx512_emulated() {
  static const WinogradKernels kernels = make_winograd<16, 14>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
