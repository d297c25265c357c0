#include "kernels/winograd/winograd.h"

#include <cstring>

#include "kernels/winograd/matrices.h"

namespace fastcnn {

const WinogradForms& winograd_forms_scalar();
const WinogradForms& winograd_forms_avx2();
const WinogradForms& winograd_forms_avx512();
const WinogradForms& winograd_forms_avx512_vnni();
const WinogradForms& winograd_forms_avx512_emulated();

const WinogradForms& winograd_forms(Isa isa) { FASTCNN_ISA_LOOKUP(isa, winograd_forms_) }

const WinogradKernel* find_winograd(Isa isa, int m, int kh, int kw) {
  const WinogradForms& all = winograd_forms(isa);
  for (int i = 0; i < all.count; ++i) {
    const WinogradKernel& k = all.forms[i];
    if (k.r_y == kh && k.r_x == kw && k.m_y == (kh == 1 ? 1 : m) && k.m_x == (kw == 1 ? 1 : m)) return &k;
  }
  return nullptr;
}

namespace {

struct Axis {
  int m, r;
  const double *at, *g, *bt;
};

template <int M, int R>
Axis axis() {
  constexpr auto& w = WinogradForm<M, R>::w;
  return {M, R, &w.at[0][0], &w.g[0][0], &w.bt[0][0]};
}

const Axis* find_axis(int m, int r) {
#define FASTCNN_AXES(MY, RY, MX, RX) axis<MY, RY>(), axis<MX, RX>(),
  static const Axis all[] = {FASTCNN_WINOGRAD_FORMS(FASTCNN_AXES)};
#undef FASTCNN_AXES
  for (const Axis& a : all) {
    if (a.m == m && a.r == r) return &a;
  }
  return nullptr;
}

}  // namespace

bool winograd_matrices_copy(int m, int r, double* at, double* g, double* bt) {
  const Axis* found = find_axis(m, r);
  if (found == nullptr) return false;
  const size_t mm = static_cast<size_t>(m), rr = static_cast<size_t>(r), t = mm + rr - 1;
  std::memcpy(at, found->at, sizeof(double) * mm * t);
  std::memcpy(g, found->g, sizeof(double) * t * rr);
  std::memcpy(bt, found->bt, sizeof(double) * t * t);
  return true;
}

}  // namespace fastcnn
