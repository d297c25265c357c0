#include "kernels/bits/generic.h"

namespace fastcnn {

const BitsKernels& bits_kernels_avx512() {
  static const BitsKernels kernels = make_bits<16>(Isa::kAvx512);
  return kernels;
}

}  // namespace fastcnn
