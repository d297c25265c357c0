#include "kernels/int8_amx/int8_amx.h"

namespace fastcnn {

const Int8AmxKernels& int8_amx_kernels_avx512_amx();
const Int8AmxKernels& int8_amx_kernels_avx512_emulated();

const Int8AmxKernels* int8_amx_kernels(Isa isa) { FASTCNN_AMX_LOOKUP(isa, int8_amx_kernels_) }

}  // namespace fastcnn
