#include "kernels/depthwise/generic.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_scalar() {
  static const DepthwiseKernels kernels = make_depthwise<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
