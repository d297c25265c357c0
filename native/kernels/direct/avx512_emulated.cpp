#include "kernels/direct/generic.h"
#include "kernels/direct/run.h"

namespace fastcnn {

static void run_avx512_emulated(const DirectShape& s, const DirectArgs& a, DirectConfig config) {
  constexpr int V = 16;
  FASTCNN_DIRECT_TILE(7, 4);
  FASTCNN_DIRECT_TILE(2, 4);
  FASTCNN_DIRECT_TILE(1, 8);
}

const DirectKernels& direct_kernels_avx512_emulated() {
  static const DirectKernels kernels = {
      Isa::kAvx512Emulated, 16, run_avx512_emulated, {{7, 4}, {7, 2}, {2, 4}, {1, 8}}, 4};
  return kernels;
}

}  // namespace fastcnn
