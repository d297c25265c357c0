// Winograd tile transforms from the exact matrices, fully unrolled: zero coefficients vanish, +-1 become additions,
// and rows (columns) that differ only in signs share an even and an odd half.
#pragma once

#include <utility>

#include "base/simd.h"
#include "kernels/winograd/matrices.h"
#include "kernels/winograd/winograd.h"

namespace fastcnn {
namespace {

template <int N, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// sum_k coef(k) * x(k), k below `count`; coef is constexpr, k an integral constant.
template <int V, class Coef, class X>
[[gnu::always_inline]] inline Vec<V> combine(Coef coef, X x, auto count) {
  Vec<V> acc = {};
  unroll<decltype(count)::value>([&](auto k) __attribute__((always_inline)) {
    constexpr double c = coef(k);
    constexpr bool first = [&] {
      for (int i = 0; i < k; ++i) {
        if (coef(i) != 0.0) return false;
      }
      return true;
    }();
    if constexpr (c != 0.0) {
      if constexpr (first) {
        if constexpr (c == 1.0) {
          acc = x(k);
        } else {
          acc = x(k) * splat<V>(static_cast<float>(c));
        }
      } else if constexpr (c == 1.0) {
        acc = acc + x(k);
      } else if constexpr (c == -1.0) {
        acc = acc - x(k);
      } else {
        acc = acc + x(k) * splat<V>(static_cast<float>(c));
      }
    }
  });
  return acc;
}

// Is row j + 1 row j with some signs turned? Then both come from one sum over equal and one over turned entries.
template <int ROWS, int COLS>
constexpr bool rows_pair(const double (&a)[ROWS][COLS], int j) {
  if (j + 1 >= ROWS) return false;
  bool differ = false;
  for (int k = 0; k < COLS; ++k) {
    if (a[j][k] != a[j + 1][k] && a[j][k] != -a[j + 1][k]) return false;
    differ |= a[j][k] != a[j + 1][k];
  }
  return differ;
}
template <int ROWS, int COLS>
constexpr bool cols_pair(const double (&a)[ROWS][COLS], int j) {
  if (j + 1 >= COLS) return false;
  for (int i = 0; i < ROWS; ++i) {
    if (a[i][j] != a[i][j + 1] && a[i][j] != -a[i][j + 1]) return false;
  }
  return true;
}
// Role of row (column) j when pairs are taken greedily from the left: 0 alone, 1 first of a pair, 2 second.
template <int ROWS, int COLS>
constexpr int row_role(const double (&a)[ROWS][COLS], int j) {
  for (int i = 0; i <= j;) {
    if (rows_pair(a, i)) {
      if (i == j) return 1;
      if (i + 1 == j) return 2;
      i += 2;
    } else {
      if (i == j) return 0;
      ++i;
    }
  }
  return 0;
}
template <int ROWS, int COLS>
constexpr int col_role(const double (&a)[ROWS][COLS], int j) {
  for (int i = 0; i <= j;) {
    if (cols_pair(a, i)) {
      if (i == j) return 1;
      if (i + 1 == j) return 2;
      i += 2;
    } else {
      if (i == j) return 0;
      ++i;
    }
  }
  return 0;
}

template <class Form>
struct BtOf {
  static constexpr int kRows = Form::w.T, kCols = Form::w.T;
  static constexpr auto& a = Form::w.bt;
};
// y = A x, for a matrix whose paired rows share an even and an odd half (BT).
template <int V, class A, class X, class Y>
[[gnu::always_inline]] inline void apply_rows(X x, Y y) {
  unroll<A::kRows>([&](auto j) __attribute__((always_inline)) {
    constexpr int J = j;
    constexpr int role = row_role(A::a, J);
    constexpr std::integral_constant<int, A::kCols> cols;
    if constexpr (role == 0) {
      y(j, combine<V>([](int k) constexpr { return A::a[J][k]; }, x, cols));
    } else if constexpr (role == 1) {
      const Vec<V> even =
          combine<V>([](int k) constexpr { return A::a[J][k] == A::a[J + 1][k] ? A::a[J][k] : 0.0; }, x, cols);
      const Vec<V> odd =
          combine<V>([](int k) constexpr { return A::a[J][k] == A::a[J + 1][k] ? 0.0 : A::a[J][k]; }, x, cols);
      y(j, even + odd);
      y(std::integral_constant<int, J + 1>{}, even - odd);
    }
  });
}

// y = AT x, for t vectors to m.
template <int V, int M, class Form, class X, class Y>
[[gnu::always_inline]] inline void apply_at(X x, Y y) {
  constexpr auto& w = Form::w;
  constexpr int T = std::remove_cvref_t<decltype(w)>::T;
  Vec<V> z[T];  // for a pair of columns: their sum and difference
  unroll<T>([&](auto j) __attribute__((always_inline)) {
    constexpr int role = col_role(w.at, j);
    if constexpr (role == 0) {
      z[j] = x(j);
    } else if constexpr (role == 1) {
      const Vec<V> p = x(j), q = x(std::integral_constant<int, j + 1>{});
      z[j] = p + q;
      z[j + 1] = p - q;
    }
  });
  unroll<M>([&](auto i) __attribute__((always_inline)) {
    constexpr int I = i;
    y(i, combine<V>(
             [](int k) constexpr {
               const int role = col_role(Form::w.at, k);
               if (role == 0) return Form::w.at[I][k];
               const int first = role == 1 ? k : k - 1;
               const bool equal = Form::w.at[I][first] == Form::w.at[I][first + 1];
               return equal == (role == 1) ? Form::w.at[I][first] : 0.0;
             },
             [&](auto k) __attribute__((always_inline)) { return z[k]; }, std::integral_constant<int, T>{}));
  });
}

template <int V, int M, int R>
void winograd_input(const float* in, ptrdiff_t row, ptrdiff_t pixel, float* out, ptrdiff_t freq_stride) {
  using Form = WinogradForm<M, R>;
  constexpr int T = M + R - 1;
  alignas(64) float tmp[T * T * V];
#pragma GCC unroll 1
  for (int x = 0; x < T; ++x) {
    apply_rows<V, BtOf<Form>>([&](auto k) __attribute__((always_inline)) { return load<V>(in + k * row + x * pixel); },
                              [&](auto j, Vec<V> v)
                                  __attribute__((always_inline)) { store<V>(tmp + (j * T + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int i = 0; i < T; ++i) {
    apply_rows<V, BtOf<Form>>([&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (i * T + k) * V); },
                              [&](auto j, Vec<V> v)
                                  __attribute__((always_inline)) { store<V>(out + (i * T + j) * freq_stride, v); });
  }
}

// P tiles of a group of TILE times NV vectors of output channels. Two pointers and constant displacements only: the
// loop is as many fused multiply-adds as the registers allow and the loads that feed them.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void product_tile(const float* v, const float* u, float* m, int blocks, bool add,
                                                Ahead ahead) {
  Vec<V> acc[P][NV] = {};
  for (int cb = 0; cb < blocks; ++cb) {
    ahead.visit();
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) {
      Vec<V> w[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) w[j] = load<V>(u + (l * NV + j) * V);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) {
        const Vec<V> x = splat<V>(v[i * V + l]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += x * w[j];
      }
    }
    v += TILE * V;
    u += V * NV * V;
  }
  if (add) {
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] += load<V>(m + (i * NV + j) * V);
  }
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) store<V>(m + (i * NV + j) * V, acc[i][j]);
}

// A group of `count` tiles, found among P, P - 1, ... 1.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void product_group(const float* v, const WinogradProduct& p, float* m, int count,
                                                 Ahead ahead) {
  if constexpr (P > 0) {
    if (count == P) {
      product_tile<V, TILE, P, NV>(v, p.u, m, p.blocks, p.add, ahead);
    } else {
      product_group<V, TILE, P - 1, NV>(v, p, m, count, ahead);
    }
  }
}

template <int V, int TILE, int NV>
void product_panel(const WinogradProduct& p) {
  const float* v = p.v;
  float* m = p.m;
  const int groups = (p.tiles + p.group - 1) / p.group;
  for (int g = 0, left = p.tiles; g < groups; ++g, left -= p.group) {
    const int count = left < p.group ? left : p.group;
    product_group<V, TILE, TILE, NV>(v, p, m, count, ahead_part(p.next, p.blocks, g, groups));
    v += p.group_stride;
    m += p.group * NV * V;
  }
}

template <int V, int TILE>
void product(const WinogradProduct& p) {
  if (p.width == 2) {
    product_panel<V, TILE, 2>(p);
  } else {
    product_panel<V, TILE, 1>(p);
  }
}

// One row of a tile, in place: bias, residual, activation in their order.
template <int V>
[[gnu::noinline]] void finish(float* line, int pixels, const WinogradOutput& o, const float* residual) {
  for (int pass = 0; pass < 2; ++pass) {
    const bool add = residual != nullptr && o.act_before_residual == (pass == 1);
    for (int j = 0; j < pixels; ++j) {
      Vec<V> v = load<V>(line + j * V);
      if (pass == 0 && o.bias != nullptr) v = v + load<V>(o.bias);
      if (add) v = v + load<V>(residual + j * o.res_pixel);
      store<V>(line + j * V, v);
    }
    if (pass == 0) activate_run<V>(line, pixels, *o.act, o.slope);
  }
}

template <int V, int M, int R>
void winograd_output(const float* in, ptrdiff_t freq_stride, const WinogradOutput& o) {
  using Form = WinogradForm<M, R>;
  constexpr int T = M + R - 1;
  alignas(64) float tmp[M * T * V];
  const Vec<V> bias = o.bias != nullptr ? load<V>(o.bias) : Vec<V>{};
#pragma GCC unroll 1
  for (int x = 0; x < T; ++x) {
    apply_at<V, M, Form>([&](auto k) __attribute__((always_inline)) { return load<V>(in + (k * T + x) * freq_stride); },
                         [&](auto i, Vec<V> v) __attribute__((always_inline)) { store<V>(tmp + (i * T + x) * V, v); });
  }
  const bool simple = o.act->kind == Act::kClamp || o.act->kind == Act::kNone;
  if (simple && o.rows == M && o.cols == M) {
    const bool clamp = o.act->kind == Act::kClamp;
    const Vec<V> lo = splat<V>(clamp ? o.act->lo : -__builtin_inff()),
                 hi = splat<V>(clamp ? o.act->hi : __builtin_inff());
    const bool before = o.residual != nullptr && !o.act_before_residual;
    const bool after = o.residual != nullptr && o.act_before_residual;
#pragma GCC unroll 1
    for (int i = 0; i < M; ++i) {
      float* out = o.out + i * o.row;
      const float* res = o.residual + (o.residual != nullptr ? i * o.res_row : 0);
      apply_at<V, M, Form>([&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (i * T + k) * V); },
                           [&](auto j, Vec<V> v) __attribute__((always_inline)) {
                             v = v + bias;
                             if (before) v = v + load<V>(res + j * o.res_pixel);
                             v = min_nan<V>(hi, max_nan<V>(lo, v));
                             if (after) v = v + load<V>(res + j * o.res_pixel);
                             store<V>(out + j * o.pixel, v);
                           });
    }
    return;
  }
  alignas(64) float line[M * V];
#pragma GCC unroll 1
  for (int i = 0; i < o.rows; ++i) {
    apply_at<V, M, Form>([&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (i * T + k) * V); },
                         [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(line + j * V, v); });
    finish<V>(line, o.cols, o, o.residual == nullptr ? nullptr : o.residual + i * o.res_row);
    for (int j = 0; j < o.cols; ++j) store<V>(o.out + i * o.row + j * o.pixel, load<V>(line + j * V));
  }
}

template <int V, int M, int R>
constexpr WinogradKernel winograd_form() {
  return {M, R, M + R - 1, winograd_input<V, M, R>, winograd_output<V, M, R>};
}

template <int V, int TILE>
WinogradKernels make_winograd(Isa isa) {
  return {isa,
          V,
          TILE,
          2,
          product<V, TILE>,
          {winograd_form<V, 6, 3>(), winograd_form<V, 4, 3>(), winograd_form<V, 2, 3>(), winograd_form<V, 4, 5>(),
           winograd_form<V, 2, 5>()},
          5};
}

}  // namespace
}  // namespace fastcnn
