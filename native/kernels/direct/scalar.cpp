#include "kernels/direct/run.h"

namespace fastcnn {

const DirectKernels& direct_kernels_scalar() {
  static const DirectKernels kernels =
      make_direct_kernels<8, DirectTile<2, 2>, DirectTile<1, 8>>(Isa::kScalar, {{2, 2}, {1, 8}});
  return kernels;
}

}  // namespace fastcnn
