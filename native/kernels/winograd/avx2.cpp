#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradForms& winograd_forms_avx2() {
  static const WinogradForms forms = make_winograd<8>(Isa::kAvx2);
  return forms;
}

}  // namespace fastcnn
