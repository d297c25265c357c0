#include "kernels/elementwise/elementwise.h"

namespace fastcnn {

const ElementwiseKernels& elementwise_kernels_scalar();
const ElementwiseKernels& elementwise_kernels_avx2();
const ElementwiseKernels& elementwise_kernels_avx512();
const ElementwiseKernels& elementwise_kernels_avx512_vnni();
const ElementwiseKernels& elementwise_kernels_avx512_emulated();

const ElementwiseKernels& elementwise_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, elementwise_kernels_) }

}  // namespace fastcnn
