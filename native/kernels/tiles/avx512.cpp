#include "kernels/tiles/generic.h"

namespace fastcnn {

const TileKernels& tile_kernels_avx512() {
  static const TileKernels kernels = make_tiles<16, 14>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
