#include "kernels/pool/generic.h"

namespace fastcnn {

const PoolKernels& pool_kernels_avx2() {
  static const PoolKernels kernels = make_pool<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
