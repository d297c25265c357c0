#include "kernels/int8/int8.h"

namespace fastcnn {

const Int8Kernels& int8_kernels_scalar();
const Int8Kernels& int8_kernels_avx2();
const Int8Kernels& int8_kernels_avx512();
const Int8Kernels& int8_kernels_avx512_vnni();
const Int8Kernels& int8_kernels_avx512_emulated();

const Int8Kernels& int8_kernels_avx2_dots();
const Int8Kernels& int8_kernels_avx512_dots();

const Int8Kernels& int8_kernels(Isa isa) {
#if defined(__x86_64__)
#if FASTCNN_HAVE_AVXVNNI
  if (isa == Isa::kAvx2 && has_byte_dots(isa)) return int8_kernels_avx2_dots();
#endif
  if (isa == Isa::kAvx512 && has_byte_dots(isa)) return int8_kernels_avx512_dots();
#endif
  FASTCNN_ISA_LOOKUP(isa, int8_kernels_)
}

}  // namespace fastcnn
