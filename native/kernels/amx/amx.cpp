#include "kernels/amx/amx.h"

namespace fastcnn {

const AmxKernels& amx_kernels_avx512_amx();
const AmxKernels& amx_kernels_avx512_emulated();

const AmxKernels* amx_kernels(Isa isa) { FASTCNN_AMX_LOOKUP(isa, amx_kernels_) }

}  // namespace fastcnn
