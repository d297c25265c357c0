#include "kernels/direct/run.h"

namespace fastcnn {

const DirectKernels& direct_kernels_avx512_vnni() {
  static const DirectKernels kernels =
      make_direct_kernels<16, DirectTile<14, 2>, DirectTile<7, 4>, DirectTile<2, 4>, DirectTile<1, 8>>(
          Isa::kAvx512Vnni, {{14, 2}, {7, 4}, {2, 4}, {1, 8}});
  return kernels;
}

}  // namespace fastcnn
