#include "kernels/amx/tiles.h"

#include "kernels/amx/generic.h"

namespace fastcnn {

const AmxKernels& amx_kernels_avx512_amx() {
  static const AmxKernels kernels = {Isa::kAvx512Amx, false, amx_run, amx_peak, amx_weights, amx_round, amx_interleave};
  return kernels;
}

}  // namespace fastcnn
