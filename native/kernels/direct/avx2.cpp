#include "kernels/direct/run.h"

namespace fastcnn {

const DirectKernels& direct_kernels_avx2() {
  static const DirectKernels kernels =
      make_direct_kernels<8, DirectTile<6, 2>, DirectTile<4, 3>, DirectTile<2, 4>, DirectTile<1, 8>>(
          Isa::kAvx2, {{6, 2}, {4, 3}, {2, 4}, {1, 8}});
  return kernels;
}

}  // namespace fastcnn
