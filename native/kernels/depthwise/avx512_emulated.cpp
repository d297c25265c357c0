#include "kernels/depthwise/generic.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_avx512_emulated() {
  static const DepthwiseKernels kernels = make_depthwise<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
