// Winograd tile transforms from the exact matrices, fully unrolled: zero coefficients vanish, +-1 become additions,
// and rows (columns) that differ only in signs share an even and an odd half.
#pragma once

#include <utility>

#include "base/simd.h"
#include "kernels/tiles/finish.h"
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
struct GOf {
  static constexpr int kRows = Form::w.T, kCols = Form::w.R;
  static constexpr auto& a = Form::w.g;
};
template <class Form>
struct AtOf {
  static constexpr int kRows = Form::w.M, kCols = Form::w.T;
  static constexpr auto& a = Form::w.at;
};
template <class Form>
struct BtOf {
  static constexpr int kRows = Form::w.T, kCols = Form::w.T;
  static constexpr auto& a = Form::w.bt;
};
// y = A x, for a matrix whose paired rows share an even and an odd half (BT, G).
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
template <int V, class Form, class X, class Y>
[[gnu::always_inline]] inline void apply_at(X x, Y y) {
  constexpr auto& w = Form::w;
  constexpr int T = w.T, M = w.M;
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

// Down: the form along a column, Across: along a row. WinogradForm<1, 1> leaves its axis alone.
template <int V, class Down, class Across>
void winograd_input(const TileInput& i) {
  constexpr int TY = Down::w.T, TX = Across::w.T;
  alignas(64) float tmp[TY * TX * V], edge[TY * TX * V];
  const float* in = i.in;
  ptrdiff_t row = i.row, pixel = i.pixel;
  if (i.y0 > 0 || i.x0 > 0 || i.y1 < TY || i.x1 < TX) {
    std::memset(edge, 0, sizeof edge);
    for (int y = i.y0; y < i.y1; ++y) {
      for (int x = i.x0; x < i.x1; ++x) store<V>(edge + (y * TX + x) * V, load<V>(in + y * row + x * pixel));
    }
    in = edge, row = TX * V, pixel = V;
  }
#pragma GCC unroll 1
  for (int x = 0; x < TX; ++x) {
    apply_rows<V, BtOf<Down>>([&](auto k) __attribute__((always_inline)) { return load<V>(in + k * row + x * pixel); },
                              [&](auto j, Vec<V> v)
                                  __attribute__((always_inline)) { store<V>(tmp + (j * TX + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int y = 0; y < TY; ++y) {
    apply_rows<V, BtOf<Across>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (y * TX + k) * V); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(i.out + (y * TX + j) * i.freq_stride, v); });
  }
}

template <int V, class Down, class Across>
void winograd_filter_tile(const TileFilter& f) {
  constexpr int TY = Down::w.T, TX = Across::w.T, RX = Across::w.R;
  alignas(64) float tmp[TY * RX * V];
#pragma GCC unroll 1
  for (int x = 0; x < RX; ++x) {
    apply_rows<V, GOf<Down>>([&](auto k) __attribute__((always_inline)) { return load<V>(f.taps + (k * RX + x) * V); },
                             [&](auto j, Vec<V> v)
                                 __attribute__((always_inline)) { store<V>(tmp + (j * RX + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int y = 0; y < TY; ++y) {
    apply_rows<V, GOf<Across>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (y * RX + k) * V); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(f.out + (y * TX + j) * f.freq_stride, v); });
  }
}

template <int V>
struct Doubles {
  typedef double type __attribute__((vector_size(V * 8)));
};

template <int V, class Down, class Across>
void winograd_spectra(const TileFilter& f) {
  using Many = typename Doubles<V>::type;
  constexpr int TY = Down::w.T, RY = Down::w.R, TX = Across::w.T, RX = Across::w.R;
  Many g[RY * RX], tmp[TY * RX];
  for (int i = 0; i < RY * RX; ++i) g[i] = __builtin_convertvector(load<V>(f.taps + i * V), Many);
#pragma GCC unroll 1
  for (int i = 0; i < TY; ++i) {
    for (int x = 0; x < RX; ++x) {
      Many sum = {};
      for (int k = 0; k < RY; ++k) sum += Down::w.g[i][k] * g[k * RX + x];
      tmp[i * RX + x] = sum;
    }
  }
#pragma GCC unroll 1
  for (int i = 0; i < TY; ++i) {
#pragma GCC unroll 1
    for (int j = 0; j < TX; ++j) {
      Many sum = {};
      for (int k = 0; k < RX; ++k) sum += Across::w.g[j][k] * tmp[i * RX + k];
      store<V>(f.out + (i * TX + j) * f.freq_stride, __builtin_convertvector(sum, Vec<V>));
    }
  }
}

template <int V, class Down, class Across>
void winograd_output(const TileOutput& o) {
  constexpr int TY = Down::w.T, TX = Across::w.T, MY = Down::w.M, MX = Across::w.M;
  alignas(64) float tmp[MY * TX * V];
  const Vec<V> bias = o.bias != nullptr ? load<V>(o.bias) : Vec<V>{};
#pragma GCC unroll 1
  for (int x = 0; x < TX; ++x) {
    apply_at<V, Down>([&](auto k)
                          __attribute__((always_inline)) { return load<V>(o.in + (k * TX + x) * o.freq_stride); },
                      [&](auto i, Vec<V> v) __attribute__((always_inline)) { store<V>(tmp + (i * TX + x) * V, v); });
  }
  static_cast<void>(TY);
  const bool simple = o.act->kind == Act::kClamp || o.act->kind == Act::kNone;
  if (simple && o.rows == MY && o.cols == MX) {
    const bool clamp = o.act->kind == Act::kClamp;
    const Vec<V> lo = splat<V>(clamp ? o.act->lo : -__builtin_inff()),
                 hi = splat<V>(clamp ? o.act->hi : __builtin_inff());
    const bool before = o.residual != nullptr && !o.act_before_residual;
    const bool after = o.residual != nullptr && o.act_before_residual;
#pragma GCC unroll 1
    for (int i = 0; i < MY; ++i) {
      float* out = o.out + i * o.row;
      const float* res = o.residual + (o.residual != nullptr ? i * o.res_row : 0);
      apply_at<V, Across>([&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (i * TX + k) * V); },
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
  alignas(64) float line[MX * V];
#pragma GCC unroll 1
  for (int i = 0; i < o.rows; ++i) {
    apply_at<V, Across>([&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (i * TX + k) * V); },
                        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(line + j * V, v); });
    finish<V>(line, o.cols, o, o.residual == nullptr ? nullptr : o.residual + i * o.res_row);
    for (int j = 0; j < o.cols; ++j) store<V>(o.out + i * o.row + j * o.pixel, load<V>(line + j * V));
  }
}

// y = A^T x for a matrix a of ROWS x COLS.
template <int V, class A, class X, class Y>
[[gnu::always_inline]] inline void apply_transposed(X x, Y y) {
  unroll<A::kCols>([&](auto j) __attribute__((always_inline)) {
    constexpr int J = j;
    y(j, combine<V>([](int k) constexpr { return A::a[k][J]; }, x, std::integral_constant<int, A::kRows>{}));
  });
}

// Of a tile of the output, zeros beyond it.
template <int V, class Down, class Across>
void winograd_gradient(const TileInput& i) {
  constexpr int TX = Across::w.T, TY = Down::w.T, MX = Across::w.M;
  alignas(64) float tmp[TY * MX * V];
  for (int x = 0; x < MX; ++x) {
    apply_transposed<V, AtOf<Down>>(
        [&](auto k) __attribute__((always_inline)) {
          return k < i.y1 && x < i.x1 ? load<V>(i.in + k * i.row + x * i.pixel) : Vec<V>{};
        },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(tmp + (j * MX + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int y = 0; y < TY; ++y) {
    apply_transposed<V, AtOf<Across>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (y * MX + k) * V); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(i.out + (y * TX + j) * i.freq_stride, v); });
  }
}

template <int V, class Down, class Across>
void winograd_spread(const TileSpread& s) {
  constexpr int TX = Across::w.T, TY = Down::w.T;
  alignas(64) float tmp[TY * TX * V];
#pragma GCC unroll 1
  for (int x = 0; x < TX; ++x) {
    apply_transposed<V, BtOf<Down>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(s.in + (k * TX + x) * s.freq_stride); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(tmp + (j * TX + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int y = s.y0; y < s.y1; ++y) {
    apply_transposed<V, BtOf<Across>>([&](auto k)
                                          __attribute__((always_inline)) { return load<V>(tmp + (y * TX + k) * V); },
                                      [&](auto j, Vec<V> v) __attribute__((always_inline)) {
                                        float* const out = s.out + y * s.row + j * s.pixel;
                                        if (j >= s.x0 && j < s.x1) store<V>(out, load<V>(out) + v);
                                      });
  }
}

template <int V, class Down, class Across>
void winograd_taps(const TileTaps& t) {
  constexpr int TX = Across::w.T, RY = Down::w.R, RX = Across::w.R;
  alignas(64) float tmp[RY * TX * V];
#pragma GCC unroll 1
  for (int x = 0; x < TX; ++x) {
    apply_transposed<V, GOf<Down>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(t.in + (k * TX + x) * t.freq_stride); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(tmp + (j * TX + x) * V, v); });
  }
#pragma GCC unroll 1
  for (int y = 0; y < RY; ++y) {
    apply_transposed<V, GOf<Across>>(
        [&](auto k) __attribute__((always_inline)) { return load<V>(tmp + (y * TX + k) * V); },
        [&](auto j, Vec<V> v) __attribute__((always_inline)) { store<V>(t.taps + (y * RX + j) * V, v); });
  }
}

template <int V, int MY, int RY, int MX, int RX>
WinogradKernel winograd_form() {
  using Down = WinogradForm<MY, RY>;
  using Across = WinogradForm<MX, RX>;
  constexpr int TY = MY + RY - 1, TX = MX + RX - 1;
  return {MY,
          RY,
          MX,
          RX,
          {TY, TX, TY * TX, 0, winograd_input<V, Down, Across>, winograd_output<V, Down, Across>,
           winograd_filter_tile<V, Down, Across>, winograd_gradient<V, Down, Across>, winograd_spread<V, Down, Across>,
           winograd_taps<V, Down, Across>},
          winograd_spectra<V, Down, Across>};
}

template <int V>
WinogradForms make_winograd(Isa isa) {
  WinogradForms all;
  all.isa = isa;
#define FASTCNN_FORM(MY, RY, MX, RX) all.forms[all.count++] = winograd_form<V, MY, RY, MX, RX>();
  FASTCNN_WINOGRAD_FORMS(FASTCNN_FORM)
#undef FASTCNN_FORM
  return all;
}

}  // namespace
}  // namespace fastcnn
