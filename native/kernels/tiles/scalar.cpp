#include "kernels/tiles/generic.h"

namespace fastcnn {

const TileKernels& tile_kernels_scalar() {
  static const TileKernels kernels = make_tiles<8, 2>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
