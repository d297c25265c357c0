#include "kernels/winograd/winograd.h"

#include <cstring>
#include <stdexcept>

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

void winograd_filter(int m, int r, const float* g, double* u) {
  if (r != 3) throw std::invalid_argument("no Winograd form for this kernel size");
  if (m == 2) {
    filter<2, 3>(g, u);
  } else if (m == 4) {
    filter<4, 3>(g, u);
  } else if (m == 6) {
    filter<6, 3>(g, u);
  } else {
    throw std::invalid_argument("no Winograd form with this output tile");
  }
}

bool winograd_matrices_copy(int m, int r, double* at, double* g, double* bt) {
  if (r != 3) return false;
  if (m == 2) {
    copy<2, 3>(at, g, bt);
  } else if (m == 4) {
    copy<4, 3>(at, g, bt);
  } else if (m == 6) {
    copy<6, 3>(at, g, bt);
  } else {
    return false;
  }
  return true;
}

}  // namespace fastcnn
