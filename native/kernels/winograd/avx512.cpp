#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradForms& winograd_forms_avx512() {
  static const WinogradForms forms = make_winograd<16>(Isa::kAvx512);
  return forms;
}

}  // namespace fastcnn
