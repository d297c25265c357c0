#include "kernels/direct/generic.h"
#include "kernels/direct/run.h"

namespace fastcnn {

static void run_avx2(const DirectShape& s, const DirectArgs& a, DirectConfig config) {
  constexpr int V = 8;
  FASTCNN_DIRECT_TILE(6, 2);
  FASTCNN_DIRECT_TILE(4, 3);
  FASTCNN_DIRECT_TILE(2, 4);
  FASTCNN_DIRECT_TILE(1, 8);
}

const DirectKernels& direct_kernels_avx2() {
  static const DirectKernels kernels = {Isa::kAvx2, 8, run_avx2, {{6, 2}, {4, 3}, {2, 4}, {1, 8}}, 4};
  return kernels;
}

}  // namespace fastcnn
