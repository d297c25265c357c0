#include "kernels/direct/generic.h"
#include "kernels/direct/run.h"

namespace fastcnn {

static void run_scalar(const DirectShape& s, const DirectArgs& a, DirectConfig config) {
  constexpr int V = 8;
  FASTCNN_DIRECT_TILE(2, 2);
  FASTCNN_DIRECT_TILE(1, 8);
}

const DirectKernels& direct_kernels_scalar() {
  static const DirectKernels kernels = {Isa::kScalar, 8, run_scalar, {{2, 2}, {1, 8}}, 2};
  return kernels;
}

}  // namespace fastcnn
