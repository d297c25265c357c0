#include "kernels/amx/tiles_emulated.h"

#include "kernels/int8_amx/generic.h"

namespace fastcnn {

const Int8AmxKernels& int8_amx_kernels_avx512_emulated() {
  static const Int8AmxKernels kernels = {Isa::kAvx512Emulated, true, int8_amx_run};
  return kernels;
}

}  // namespace fastcnn
