#include "kernels/fft/generic.h"

namespace fastcnn {

const FftForms& fft_forms_avx2() {
  static const FftForms forms = make_fft<8>(Isa::kAvx2);
  return forms;
}

}  // namespace fastcnn
