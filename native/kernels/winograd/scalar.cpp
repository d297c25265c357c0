#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradForms& winograd_forms_scalar() {
  static const WinogradForms forms = make_winograd<8>(Isa::kScalar);
  return forms;
}

}  // namespace fastcnn
