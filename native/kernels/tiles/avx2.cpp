#include "kernels/tiles/generic.h"

namespace fastcnn {

const TileKernels& tile_kernels_avx2() {
  static const TileKernels kernels = make_tiles<8, 6>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
