#include "kernels/fft/generic.h"

namespace fastcnn {

const FftForms& fft_forms_avx512() {
  static const FftForms forms = make_fft<16>(Isa::kAvx512);
  return forms;
}

}  // namespace fastcnn
