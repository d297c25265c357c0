#include "kernels/fft/generic.h"

namespace fastcnn {

const FftForms& fft_forms_avx512_emulated() {
  static const FftForms forms = make_fft<16>(Isa::kAvx512Emulated);
  return forms;
}

}  // namespace fastcnn
