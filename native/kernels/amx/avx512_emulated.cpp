#include "kernels/amx/tiles_emulated.h"

#include "kernels/amx/generic.h"

namespace fastcnn {

const AmxKernels& amx_kernels_avx512_emulated() {
  static const AmxKernels kernels = {Isa::kAvx512Emulated, true,      amx_run,       amx_peak,
                                     amx_weights,          amx_round, amx_interleave};
  return kernels;
}

}  // namespace fastcnn
