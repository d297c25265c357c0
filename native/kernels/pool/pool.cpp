#include "kernels/pool/pool.h"

namespace fastcnn {

const PoolKernels& pool_kernels_scalar();
const PoolKernels& pool_kernels_avx2();
const PoolKernels& pool_kernels_avx512();
const PoolKernels& pool_kernels_avx512_vnni();
const PoolKernels& pool_kernels_avx512_emulated();

const PoolKernels& pool_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, pool_kernels_) }

}  // namespace fastcnn
