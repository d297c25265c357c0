#include "kernels/int8/int8.h"

namespace fastcnn {

const Int8Kernels& int8_kernels_scalar();
const Int8Kernels& int8_kernels_avx2();
const Int8Kernels& int8_kernels_avx512();
const Int8Kernels& int8_kernels_avx512_vnni();
const Int8Kernels& int8_kernels_avx512_emulated();

const Int8Kernels& int8_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, int8_kernels_) }

}  // namespace fastcnn
