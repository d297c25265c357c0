#include "kernels/bits_amx/bits_amx.h"

namespace fastcnn {

const BitsAmxKernels& bits_amx_kernels_avx512_amx();
const BitsAmxKernels& bits_amx_kernels_avx512_emulated();

const BitsAmxKernels* bits_amx_kernels(Isa isa) {
#if defined(__x86_64__)
#if FASTCNN_HAVE_AMX
  if (isa == Isa::kAvx512Amx) return &bits_amx_kernels_avx512_amx();
#endif
#if FASTCNN_EMULATE_AVX512
  if (isa == Isa::kAvx512Emulated) return &bits_amx_kernels_avx512_emulated();
#endif
#endif
  static_cast<void>(isa);
  return nullptr;
}

}  // namespace fastcnn
