#include "kernels/relayout/generic.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_scalar() {
  static const RelayoutKernels kernels = make_relayout<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
