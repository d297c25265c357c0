#include "kernels/bits/generic.h"

namespace fastcnn {

const BitsKernels& bits_kernels_avx2() {
  static const BitsKernels kernels = make_bits<8>(Isa::kAvx2);
  return kernels;
}

}  // namespace fastcnn
