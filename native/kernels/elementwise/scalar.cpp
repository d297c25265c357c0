#include "kernels/elementwise/generic.h"

namespace fastcnn {

const ElementwiseKernels& elementwise_kernels_scalar() {
  static const ElementwiseKernels kernels = make_elementwise<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
