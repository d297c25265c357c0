#include "kernels/pool/generic.h"

namespace fastcnn {

const PoolKernels& pool_kernels_avx512_emulated() {
  static const PoolKernels kernels = make_pool<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
