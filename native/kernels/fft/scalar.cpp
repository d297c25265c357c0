#include "kernels/fft/generic.h"

namespace fastcnn {

const FftForms& fft_forms_scalar() {
  static const FftForms forms = make_fft<8>(Isa::kScalar);
  return forms;
}

}  // namespace fastcnn
