#include "kernels/depthwise/depthwise.h"

namespace fastcnn {

const DepthwiseKernels& depthwise_kernels_scalar();
const DepthwiseKernels& depthwise_kernels_avx2();
const DepthwiseKernels& depthwise_kernels_avx512();
const DepthwiseKernels& depthwise_kernels_avx512_vnni();
const DepthwiseKernels& depthwise_kernels_avx512_emulated();

const DepthwiseKernels& depthwise_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, depthwise_kernels_) }

}  // namespace fastcnn
