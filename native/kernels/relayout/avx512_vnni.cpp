#include "kernels/relayout/generic.h"

namespace fastcnn {

const RelayoutKernels& relayout_kernels_avx512_vnni() {
  static const RelayoutKernels kernels = make_relayout<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
