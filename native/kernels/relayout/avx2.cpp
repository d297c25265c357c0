#include "kernels/relayout/generic.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_avx2() {
  static const RelayoutKernels kernels = make_relayout<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
