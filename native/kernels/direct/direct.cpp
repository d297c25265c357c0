#include "kernels/direct/direct.h"

namespace fastcnn {

const DirectKernels& direct_kernels_scalar();
const DirectKernels& direct_kernels_avx2();
const DirectKernels& direct_kernels_avx512();
const DirectKernels& direct_kernels_avx512_vnni();
const DirectKernels& direct_kernels_avx512_emulated();

const DirectKernels& direct_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, direct_kernels_) }

}  // namespace fastcnn
