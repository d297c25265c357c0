#include "kernels/bits/bits.h"

namespace fastcnn {

const BitsKernels& bits_kernels_scalar();
const BitsKernels& bits_kernels_avx2();
const BitsKernels& bits_kernels_avx512();
const BitsKernels& bits_kernels_avx512_vnni();
const BitsKernels& bits_kernels_avx512_emulated();

const BitsKernels& bits_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, bits_kernels_) }

}  // namespace fastcnn
