#include "kernels/bits/generic.h"

namespace fastcnn {

const BitsKernels& bits_kernels_avx512_vnni() {
  static const BitsKernels kernels = make_bits<16>(Isa::kAvx512Vnni);
  return kernels;
}

}  // namespace fastcnn
