#include "kernels/depthwise/generic.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_avx2() {
  static const DepthwiseKernels kernels = make_depthwise<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
