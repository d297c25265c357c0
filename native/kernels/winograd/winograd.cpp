#include "kernels/winograd/winograd.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/winograd/matrices.h"

namespace fastcnn {

const WinogradKernels& winograd_kernels_scalar();
const WinogradKernels& winograd_kernels_avx2();
const WinogradKernels& winograd_kernels_avx512();
const WinogradKernels& winograd_kernels_avx512_vnni();
const WinogradKernels& winograd_kernels_avx512_emulated();

const WinogradKernels& winograd_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, winograd_kernels_) }

const WinogradKernel* find_winograd(Isa isa, int m, int r) {
  const WinogradKernels& all = winograd_kernels(isa);
  for (int i = 0; i < all.count; ++i) {
    if (all.forms[i].m == m && all.forms[i].r == r) return &all.forms[i];
  }
  return nullptr;
}

template <int M, int R>
static void filter(const float* g, double* u) {
  constexpr auto& w = WinogradForm<M, R>::w;
  constexpr int T = M + R - 1;
  double tmp[T][R];
  for (int i = 0; i < T; ++i) {
    for (int x = 0; x < R; ++x) {
      tmp[i][x] = 0;
      for (int k = 0; k < R; ++k) tmp[i][x] += w.g[i][k] * static_cast<double>(g[k * R + x]);
    }
  }
  for (int i = 0; i < T; ++i) {
    for (int j = 0; j < T; ++j) {
      double sum = 0;
      for (int k = 0; k < R; ++k) sum += tmp[i][k] * w.g[j][k];
      u[i * T + j] = sum;
    }
  }
}

template <int M, int R>
static void copy(double* at, double* g, double* bt) {
  constexpr auto& w = WinogradForm<M, R>::w;
  std::memcpy(at, w.at, sizeof w.at);
  std::memcpy(g, w.g, sizeof w.g);
  std::memcpy(bt, w.bt, sizeof w.bt);
}

// Calls f(M, R) as integral constants if there is such a form.
template <class F>
static bool with_form(int m, int r, F f) {
  const auto is = [&](auto mm, auto rr) {
    if (m != mm || r != rr) return false;
    f(mm, rr);
    return true;
  };
  using std::integral_constant;
  return is(integral_constant<int, 2>{}, integral_constant<int, 3>{}) ||
         is(integral_constant<int, 4>{}, integral_constant<int, 3>{}) ||
         is(integral_constant<int, 6>{}, integral_constant<int, 3>{}) ||
         is(integral_constant<int, 2>{}, integral_constant<int, 5>{}) ||
         is(integral_constant<int, 4>{}, integral_constant<int, 5>{});
}

void winograd_filter(int m, int r, const float* g, double* u) {
  const bool known = with_form(m, r, [&](auto mm, auto rr) { filter<mm, rr>(g, u); });
  if (!known) {
    throw std::invalid_argument("no Winograd form F(" + std::to_string(m) + ", " + std::to_string(r) + ")");
  }
}

bool winograd_matrices_copy(int m, int r, double* at, double* g, double* bt) {
  return with_form(m, r, [&](auto mm, auto rr) { copy<mm, rr>(at, g, bt); });
}

}  // namespace fastcnn
