#include "kernels/amx/tiles.h"

#include "kernels/bits_amx/generic.h"

namespace fastcnn {

const BitsAmxKernels& bits_amx_kernels_avx512_amx() {
  static const BitsAmxKernels kernels = {Isa::kAvx512Amx, false, expand, bits_amx_run};
  return kernels;
}

}  // namespace fastcnn
