#include "kernels/bits/generic.h"

namespace fastcnn {

const BitsKernels& bits_kernels_avx512_emulated() {
  static const BitsKernels kernels = make_bits<16>(Isa::kAvx512Emulated);
  return kernels;
}

}  // namespace fastcnn
