#include "kernels/bits/generic.h"

namespace fastcnn {

const BitsKernels& bits_kernels_scalar() {
  static const BitsKernels kernels = make_bits<8>(Isa::kScalar);
  return kernels;
}

}  // namespace fastcnn
