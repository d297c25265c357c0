#include "kernels/depthwise/generic.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_avx512_vnni() {
  static const DepthwiseKernels kernels = make_depthwise<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
