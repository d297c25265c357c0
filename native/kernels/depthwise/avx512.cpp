#include "kernels/depthwise/generic.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_avx512() {
  static const DepthwiseKernels kernels = make_depthwise<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
