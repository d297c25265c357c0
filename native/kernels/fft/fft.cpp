#include "kernels/fft/fft.h"

namespace fastcnn {

const FftForms& fft_forms_scalar();
const FftForms& fft_forms_avx2();
const FftForms& fft_forms_avx512();
const FftForms& fft_forms_avx512_vnni();
const FftForms& fft_forms_avx512_emulated();

const FftForms& fft_forms(Isa isa) { FASTCNN_ISA_LOOKUP(isa, fft_forms_) }

const TileForm* find_fft(Isa isa, int t) {
  const FftForms& all = fft_forms(isa);
  for (int i = 0; i < all.count; ++i) {
    if (all.forms[i].t_y == t) return &all.forms[i];
  }
  return nullptr;
}

const FftHalves& fft_halves(Isa isa, int t) {
  const FftForms& all = fft_forms(isa);
  int i = 0;
  while (all.forms[i].t_y != t) ++i;
  return all.halves[i];
}

}  // namespace fastcnn
