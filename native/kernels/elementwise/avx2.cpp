#include "kernels/elementwise/generic.h"

namespace fastcnn {

const ElementwiseKernels& elementwise_kernels_avx2() {
  static const ElementwiseKernels kernels = make_elementwise<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
