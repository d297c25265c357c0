#include "kernels/tiles/generic.h"

namespace fastcnn {

const TileKernels& tile_kernels_avx512_emulated() {
  static const TileKernels kernels = make_tiles<16, 14>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
