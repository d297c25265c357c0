#include "kernels/winograd/generic.h"

namespace fastcnn {

const WinogradForms& winograd_forms_avx512_emulated() {
  static const WinogradForms forms = make_winograd<16>(Isa::kAvx512Emulated);
  return forms;
}

}  // namespace fastcnn
