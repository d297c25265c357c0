#include "kernels/elementwise/generic.h"

namespace fastcnn {

const ElementwiseKernels& elementwise_kernels_avx512_vnni() {
  static const ElementwiseKernels kernels = make_elementwise<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
