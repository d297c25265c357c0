#include "kernels/pool/generic.h"

namespace fastcnn {

const PoolKernels& pool_kernels_avx512() {
  static const PoolKernels kernels = make_pool<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
