#include "kernels/relayout/generic.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_avx512_emulated() {
  static const RelayoutKernels kernels = make_relayout<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
