#include "kernels/tiles/tiles.h"

namespace fastcnn {

const TileKernels& tile_kernels_scalar();
const TileKernels& tile_kernels_avx2();
const TileKernels& tile_kernels_avx512();
const TileKernels& tile_kernels_avx512_vnni();
const TileKernels& tile_kernels_avx512_emulated();

const TileKernels& tile_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, tile_kernels_) }

}  // namespace fastcnn
