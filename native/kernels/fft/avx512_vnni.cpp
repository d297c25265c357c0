#include "kernels/fft/generic.h"

namespace fastcnn {

const FftForms& fft_forms_avx512_vnni() {
  static const FftForms forms = make_fft<16>(Isa::kAvx512Vnni);
  return forms;
}

}  // namespace fastcnn
