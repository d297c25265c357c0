#include "kernels/relayout/relayout.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_scalar();
const RelayoutKernels& relayout_kernels_avx2();
const RelayoutKernels& relayout_kernels_avx512();
const RelayoutKernels& relayout_kernels_avx512_vnni();
const RelayoutKernels& relayout_kernels_avx512_emulated();

const RelayoutKernels& relayout_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, relayout_kernels_) }

}  // namespace fastcnn
