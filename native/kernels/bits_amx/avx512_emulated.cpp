#include "kernels/amx/tiles_emulated.h"

#include "kernels/bits_amx/generic.h"

namespace fastcnn {

const BitsAmxKernels& bits_amx_kernels_avx512_emulated() {
  static const BitsAmxKernels kernels = {Isa::kAvx512Emulated, true, expand, bits_amx_run};
  return kernels;
}

}  // namespace fastcnn
