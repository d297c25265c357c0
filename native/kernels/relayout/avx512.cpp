#include "kernels/relayout/generic.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_avx512() {
  static const RelayoutKernels kernels = make_relayout<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
