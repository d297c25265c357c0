#include "kernels/elementwise/generic.h"

namespace fastcnn {

const ElementwiseKernels& elementwise_kernels_avx512() {
  static const ElementwiseKernels kernels = make_elementwise<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
