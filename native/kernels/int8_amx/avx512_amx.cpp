#include "kernels/amx/tiles.h"

#include "kernels/int8_amx/generic.h"

namespace fastcnn {

const Int8AmxKernels& int8_amx_kernels_avx512_amx() {
  static const Int8AmxKernels kernels = {Isa::kAvx512Amx, false, int8_amx_run};
  return kernels;
}

}  // namespace fastcnn
