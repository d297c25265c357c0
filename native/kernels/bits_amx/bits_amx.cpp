#include "kernels/bits_amx/bits_amx.h"

namespace fastcnn {

const BitsAmxKernels& bits_amx_kernels_avx512_amx();
const BitsAmxKernels& bits_amx_kernels_avx512_emulated();

const BitsAmxKernels* bits_amx_kernels(Isa isa) { FASTCNN_AMX_LOOKUP(isa, bits_amx_kernels_) }

}  // namespace fastcnn
