#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradForms& winograd_forms_avx512_vnni() {
  static const WinogradForms forms = make_winograd<16>(Isa::kAvx512Vnni);
  return forms;
}

}  // namespace fastcnn
