#include "kernels/pool/generic.h"

namespace fastcnn {

const PoolKernels& pool_kernels_scalar() {
  static const PoolKernels kernels = make_pool<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
