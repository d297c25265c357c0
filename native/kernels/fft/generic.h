// Two-dimensional real transforms of tiles, V channels at once. Included once per ISA.
//
// Forward: two columns of the tile are the real and imaginary part of one complex transform, whose even and odd parts
// are their spectra; rows 0 and t/2 of those are real, and are again two rows in one complex transform; rows 1 ... t/2
// - 1 are complex. That is t complex transforms of t points. Halves are left out, so that complex frequencies come out
// doubled: filters make up for it, and for the 1 / t^2 of the inverse.
#pragma once

#include "base/simd.h"
#include "kernels/fft/codelet.h"
#include "kernels/fft/fft.h"
#include "kernels/tiles/finish.h"

namespace fastcnn {
namespace {

// tmp[row][x] with rows: 0, t/2, then real and imaginary part of 1 ... t/2 - 1.
template <int V, int T>
[[gnu::always_inline]] inline float* place(float* tmp, int row, int x) {
  return tmp + (row * T + x) * V;
}

// Where the products of a frequency begin: those of row 0, of row t/2, of the rows between.
template <int T>
constexpr int edge_freq(bool lower, int column) {
  return 4 + 3 * ((lower ? T / 2 - 1 : 0) + column - 1);
}
template <int T>
constexpr int inner_freq(int row, int column) {
  return 4 + 3 * (T - 2 + (row - 1) * T + column);
}

// Columns x0 ... x1 of a tile that has others, which are zero; load(y, x) for every y. at(row, x): where a value of the
// result goes, rows being numbered as in tmp.
template <int V, int T, int A, int B, class Load, class At>
[[gnu::always_inline]] inline void columns(int x0, int x1, Load load_pixel, At at) {
  alignas(64) float z[2 * T * V];
  for (int x = 0; x < T; x += 2) {
    if (x + 2 <= x0 || x >= x1) {
      for (int row = 0; row < T; ++row) {
        store<V>(at(row, x), Vec<V>{});
        store<V>(at(row, x + 1), Vec<V>{});
      }
      continue;
    }
    const bool left = x >= x0, right = x + 1 < x1;
    transform<V, A, B>(
        [&](int y) __attribute__((always_inline)) {
          return Complex<V>{left ? load_pixel(y, x) : Vec<V>{}, right ? load_pixel(y, x + 1) : Vec<V>{}};
        },
        [&](int k, Complex<V> v) __attribute__((always_inline)) {
          store<V>(z + 2 * k * V, v.re);
          store<V>(z + 2 * k * V + V, v.im);
        });
    const auto point = [&](int k) __attribute__((always_inline)) {
      return Complex<V>{load<V>(z + 2 * k * V), load<V>(z + 2 * k * V + V)};
    };
    for (int half = 0; half < 2; ++half) {
      const Complex<V> v = point(half * T / 2);
      store<V>(at(half, x), v.re);
      store<V>(at(half, x + 1), v.im);
    }
    for (int k = 1; k < T / 2; ++k) {
      const Complex<V> p = point(k), q = point(T - k);
      store<V>(at(2 * k, x), p.re + q.re);
      store<V>(at(2 * k + 1, x), p.im - q.im);
      store<V>(at(2 * k, x + 1), p.im + q.im);
      store<V>(at(2 * k + 1, x + 1), q.re - p.re);
    }
  }
}

// Rows 0 and t/2, whose value at x are the parts of at(x): real(which of the four, value), pair(first of its products,
// value).
template <int V, int T, int A, int B, class At, class Real, class Pair>
[[gnu::always_inline]] inline void edge_rows(At at, Real real, Pair pair) {
  alignas(64) float z[2 * T * V];
  transform<V, A, B>(at, [&](int k, Complex<V> v) __attribute__((always_inline)) {
    store<V>(z + 2 * k * V, v.re);
    store<V>(z + 2 * k * V + V, v.im);
  });
  const auto point = [&](int k) __attribute__((always_inline)) {
    return Complex<V>{load<V>(z + 2 * k * V), load<V>(z + 2 * k * V + V)};
  };
  for (int half = 0; half < 2; ++half) {
    const Complex<V> v = point(half * T / 2);
    real(half, v.re);
    real(2 + half, v.im);
  }
  for (int k = 1; k < T / 2; ++k) {
    const Complex<V> p = point(k), q = point(T - k);
    pair(edge_freq<T>(false, k), Complex<V>{p.re + q.re, p.im - q.im});
    pair(edge_freq<T>(true, k), Complex<V>{p.im + q.im, q.re - p.re});
  }
}

// The rows of tmp: real(which of the four, value), pair(first of its products, value).
template <int V, int T, int A, int B, class Real, class Pair>
[[gnu::always_inline]] inline void rows(const float* tmp, Real real, Pair pair) {
  float* const from = const_cast<float*>(tmp);
  const auto at = [from](int row) __attribute__((always_inline)) {
    return [from, row](int x) __attribute__((always_inline)) {
      return Complex<V>{load<V>(place<V, T>(from, 2 * row, x)), load<V>(place<V, T>(from, 2 * row + 1, x))};
    };
  };
  edge_rows<V, T, A, B>(at(0), real, pair);
  for (int row = 1; row < T / 2; ++row) {
    transform<V, A, B>(at(row),
                       [&](int k, Complex<V> v) __attribute__((always_inline)) { pair(inner_freq<T>(row, k), v); });
  }
}

// columns() into tmp.
template <int V, int T, int A, int B, class Load>
[[gnu::always_inline]] inline void columns_into(float* tmp, int x0, int x1, Load load_pixel) {
  columns<V, T, A, B>(x0, x1, load_pixel,
                      [&](int row, int x) __attribute__((always_inline)) { return place<V, T>(tmp, row, x); });
}

// The columns of a tile of the input, which are in memory for the most part.
template <int V, int T, int A, int B, class At>
[[gnu::always_inline]] inline void input_columns(const TileInput& i, At at) {
  if (i.y0 <= 0 && i.x0 <= 0 && i.y1 >= T && i.x1 >= T) {
    columns<V, T, A, B>(
        0, T, [&](int y, int x) __attribute__((always_inline)) { return load<V>(i.in + y * i.row + x * i.pixel); }, at);
  } else {
    columns<V, T, A, B>(
        i.x0, i.x1,
        [&](int y, int x) __attribute__((always_inline)) {
          return y < i.y0 || y >= i.y1 ? Vec<V>{} : load<V>(i.in + y * i.row + x * i.pixel);
        },
        at);
  }
}

// A complex frequency of the input as the factors of its three products.
template <int V>
[[gnu::always_inline]] inline void store_factors(float* to, ptrdiff_t freq_stride, Complex<V> v) {
  store<V>(to, v.re + v.im);
  store<V>(to + freq_stride, v.re);
  store<V>(to + 2 * freq_stride, v.im);
}

// A complex frequency of the output from its three products.
template <int V>
[[gnu::always_inline]] inline Complex<V> load_products(const float* from, ptrdiff_t freq_stride) {
  const Vec<V> p = load<V>(from), q = load<V>(from + freq_stride), s = load<V>(from + 2 * freq_stride);
  return {p - s, p + q};
}

template <int V, int T, int A, int B>
void fft_input(const TileInput& i) {
  input_columns<V, T, A, B>(i,
                            [&](int row, int x) __attribute__((always_inline)) { return place<V, T>(i.work, row, x); });
  rows<V, T, A, B>(
      i.work, [&](int which, Vec<V> v) __attribute__((always_inline)) { store<V>(i.out + which * i.freq_stride, v); },
      [&](int freq, Complex<V> v)
          __attribute__((always_inline)) { store_factors<V>(i.out + freq * i.freq_stride, i.freq_stride, v); });
}

// Of a tile of the output, zeros beyond it.
template <int V, int T, int A, int B>
void fft_gradient(const TileInput& i) {
  columns_into<V, T, A, B>(i.work, i.x0, i.x1, [&](int y, int x) __attribute__((always_inline)) {
    return y < i.y0 || y >= i.y1 ? Vec<V>{} : load<V>(i.in + y * i.row + x * i.pixel);
  });
  rows<V, T, A, B>(
      i.work, [&](int which, Vec<V> v) __attribute__((always_inline)) { store<V>(i.out + which * i.freq_stride, v); },
      [&](int freq, Complex<V> v) __attribute__((always_inline)) {
        float* const to = i.out + freq * i.freq_stride;
        store<V>(to, v.re + v.im);
        store<V>(to + i.freq_stride, v.im);
        store<V>(to + 2 * i.freq_stride, -v.re);
      });
}

// Both spectra have twice their complex frequencies, the output has them once.
template <int T>
constexpr float kRealScale = 1.0f / (T * T);
template <int T>
constexpr float kPairScale = kRealScale<T> / 4;

template <int V, int T, int A, int B>
void fft_filter(const TileFilter& f) {
  columns_into<V, T, A, B>(f.work, 0, f.kw, [&](int y, int x) __attribute__((always_inline)) {
    return y < f.kh ? load<V>(f.taps + (y * f.kw + x) * V) : Vec<V>{};
  });
  rows<V, T, A, B>(
      f.work,
      [&](int which, Vec<V> v)
          __attribute__((always_inline)) { store<V>(f.out + which * f.freq_stride, v * splat<V>(kRealScale<T>)); },
      [&](int freq, Complex<V> v) __attribute__((always_inline)) {
        float* const to = f.out + freq * f.freq_stride;
        const Vec<V> c = v.re * splat<V>(kPairScale<T>), e = v.im * splat<V>(-kPairScale<T>);
        store<V>(to, c);
        store<V>(to + f.freq_stride, e - c);
        store<V>(to + 2 * f.freq_stride, c + e);
      });
}

// Swapped before and after, a transform is the inverse.
template <int V>
[[gnu::always_inline]] inline Complex<V> swapped(Complex<V> v) {
  return {v.im, v.re};
}

// What the inverse is made of: a sequence of points in registers' reach, put in and transformed.
template <int V, int T, int A, int B>
struct Inverse {
  alignas(64) float z[2 * T * V];

  [[gnu::always_inline]] void put(int k, Complex<V> v) {
    store<V>(z + 2 * k * V, v.re);
    store<V>(z + 2 * k * V + V, v.im);
  }
  // p and q of two real sequences, as p + iq and its mirror image.
  [[gnu::always_inline]] void put_both(int k, Complex<V> p, Complex<V> q) {
    put(k, {p.re - q.im, p.im + q.re});
    put(T - k, {p.re + q.im, q.re - p.im});
  }
  template <class Store>
  [[gnu::always_inline]] void run(Store store_point) {
    transform<V, A, B>(
        [&](int k)
            __attribute__((always_inline)) { return Complex<V>{load<V>(z + 2 * k * V + V), load<V>(z + 2 * k * V)}; },
        [&](int n, Complex<V> v) __attribute__((always_inline)) { store_point(n, swapped(v)); });
  }

  // Rows 0 and t/2, times t, both in one: real(which of the four), pair(first of the products of a complex frequency);
  // store_point(x, value of row 0 and of row t/2).
  template <class Real, class Pair, class Store>
  [[gnu::always_inline]] void edge_rows(Real real, Pair pair, Store store_point) {
    for (int half = 0; half < 2; ++half) put(half * T / 2, {real(half), real(2 + half)});
    for (int k = 1; k < T / 2; ++k) put_both(k, pair(edge_freq<T>(false, k)), pair(edge_freq<T>(true, k)));
    run(store_point);
  }
  // Any other row; pair(column).
  template <class Pair, class Store>
  [[gnu::always_inline]] static void inner_row(Pair pair, Store store_point) {
    transform<V, A, B>([&](int k) __attribute__((always_inline)) { return swapped(pair(k)); },
                       [&](int x, Complex<V> v) __attribute__((always_inline)) { store_point(x, swapped(v)); });
  }
  // Columns x and x + 1: at(row, x), row numbered as the rows above and with its two values; emit(y, x, value, value of
  // column x + 1) for every y.
  template <class At, class Emit>
  [[gnu::always_inline]] void two_columns(int x, At at, Emit emit) {
    const Complex<V> left = at(0, x), right = at(0, x + 1);
    put(0, {left.re, right.re});
    put(T / 2, {left.im, right.im});
    for (int k = 1; k < T / 2; ++k) put_both(k, at(k, x), at(k, x + 1));
    run([&](int y, Complex<V> v) __attribute__((always_inline)) { emit(y, x, v.re, v.im); });
  }
};

// The inverse, times t^2: real(which of the four), pair(first of the products of a complex frequency); then, for even
// columns x below `cols`, emit(y, x, value, value of column x + 1) for every y.
template <int V, int T, int A, int B, class Real, class Pair, class Emit>
[[gnu::always_inline]] inline void inverse(float* tmp, int cols, Real real, Pair pair, Emit emit) {
  Inverse<V, T, A, B> inverse;
  const auto keep = [tmp, cols](int row) __attribute__((always_inline)) {
    return [tmp, cols, row](int x, Complex<V> v) __attribute__((always_inline)) {
      if (x > cols) return;
      store<V>(place<V, T>(tmp, 2 * row, x), v.re);
      store<V>(place<V, T>(tmp, 2 * row + 1, x), v.im);
    };
  };
  inverse.edge_rows(real, pair, keep(0));
  for (int row = 1; row < T / 2; ++row) {
    inverse.inner_row([&](int k) __attribute__((always_inline)) { return pair(inner_freq<T>(row, k)); }, keep(row));
  }
  for (int x = 0; x < cols; x += 2) {
    inverse.two_columns(
        x,
        [&](int row, int column) __attribute__((always_inline)) {
          return Complex<V>{load<V>(place<V, T>(tmp, 2 * row, column)), load<V>(place<V, T>(tmp, 2 * row + 1, column))};
        },
        emit);
  }
}

// An output tile: run(emit) computes it, with emit as inverse() has it; bias, residual and activation are applied.
template <int V, int T, class Run>
[[gnu::always_inline]] inline void finish_tile(const TileOutput& o, Run run) {
  const Vec<V> bias = o.bias != nullptr ? load<V>(o.bias) : Vec<V>{};
  const bool simple = o.residual == nullptr && (o.act->kind == Act::kClamp || o.act->kind == Act::kNone);
  const bool clamp = o.act->kind == Act::kClamp;
  const Vec<V> lo = splat<V>(clamp ? o.act->lo : -__builtin_inff()),
               hi = splat<V>(clamp ? o.act->hi : __builtin_inff());
  run([&](int y, int x, Vec<V> left, Vec<V> right) __attribute__((always_inline)) {
    if (y >= o.rows) return;
    float* const out = o.out + y * o.row + x * o.pixel;
    left = left + bias, right = right + bias;
    if (simple) left = min_nan<V>(hi, max_nan<V>(lo, left)), right = min_nan<V>(hi, max_nan<V>(lo, right));
    store<V>(out, left);
    if (x + 1 < o.cols) store<V>(out + o.pixel, right);
  });
  if (simple) return;
  TileOutput rest = o;
  rest.bias = nullptr;  // added already
  alignas(64) float line[T * V];
  for (int y = 0; y < o.rows; ++y) {
    float* const out = o.out + y * o.row;
    for (int x = 0; x < o.cols; ++x) store<V>(line + x * V, load<V>(out + x * o.pixel));
    finish<V>(line, o.cols, rest, o.residual == nullptr ? nullptr : o.residual + y * o.res_row);
    for (int x = 0; x < o.cols; ++x) store<V>(out + x * o.pixel, load<V>(line + x * V));
  }
}

template <int V, int T, int A, int B>
void fft_output(const TileOutput& o) {
  finish_tile<V, T>(o, [&](auto emit) __attribute__((always_inline)) {
    inverse<V, T, A, B>(
        o.work, o.cols, [&](int which) __attribute__((always_inline)) { return load<V>(o.in + which * o.freq_stride); },
        [&](int freq)
            __attribute__((always_inline)) { return load_products<V>(o.in + freq * o.freq_stride, o.freq_stride); },
        emit);
  });
}

// In two halves: row r of the columns' transforms holds the values (x, two vectors) of rows 0 and t/2 of tmp for r = 0,
// and the real and imaginary part of one for every other.

template <int V, int T, int A, int B>
void half_columns(const TileInput& i) {
  input_columns<V, T, A, B>(i, [&](int row, int x) __attribute__((always_inline)) {
    return i.out + row / 2 * i.freq_stride + (2 * x + row % 2) * V;
  });
}

template <int V, int T, int A, int B>
void half_row(const FftRow& r) {
  const auto at = [&](int x) __attribute__((always_inline)) {
    return Complex<V>{load<V>(r.points + 2 * x * V), load<V>(r.points + 2 * x * V + V)};
  };
  const ptrdiff_t stride = r.freq_stride;
  float* const out = r.products;
  const auto factors = [&](int freq, Complex<V> v)
                           __attribute__((always_inline)) { store_factors<V>(out + freq * stride, stride, v); };
  if (r.row == 0) {
    edge_rows<V, T, A, B>(
        at, [&](int which, Vec<V> v) __attribute__((always_inline)) { store<V>(out + which * stride, v); }, factors);
  } else {
    transform<V, A, B>(at, [&](int k, Complex<V> v) __attribute__((always_inline)) { factors(3 * k, v); });
  }
}

template <int V, int T, int A, int B>
void half_row_back(const FftRow& r) {
  const ptrdiff_t stride = r.freq_stride;
  const float* const from = r.products;
  const auto keep = [&](int x, Complex<V> v) __attribute__((always_inline)) {
    if (x >= r.cols) return;
    store<V>(r.points + 2 * x * V, v.re);
    store<V>(r.points + 2 * x * V + V, v.im);
  };
  const auto pair = [&](int freq)
                        __attribute__((always_inline)) { return load_products<V>(from + freq * stride, stride); };
  Inverse<V, T, A, B> inverse;
  if (r.row == 0) {
    inverse.edge_rows([&](int which) __attribute__((always_inline)) { return load<V>(from + which * stride); }, pair,
                      keep);
  } else {
    inverse.inner_row([&](int k) __attribute__((always_inline)) { return pair(3 * k); }, keep);
  }
}

template <int V, int T, int A, int B>
void half_columns_back(const TileOutput& o) {
  finish_tile<V, T>(o, [&](auto emit) __attribute__((always_inline)) {
    Inverse<V, T, A, B> inverse;
    for (int x = 0; x < o.cols; x += 2) {
      inverse.two_columns(
          x,
          [&](int row, int column) __attribute__((always_inline)) {
            const float* const at = o.in + row * o.freq_stride + 2 * column * V;
            return Complex<V>{load<V>(at), load<V>(at + V)};
          },
          emit);
    }
  });
}

template <int V, int T, int A, int B>
void fft_spread(const TileSpread& s) {
  inverse<V, T, A, B>(
      s.work, s.x1, [&](int which) __attribute__((always_inline)) { return load<V>(s.in + which * s.freq_stride); },
      [&](int freq) __attribute__((always_inline)) {
        const float* const from = s.in + freq * s.freq_stride;
        const Vec<V> sum = load<V>(from);
        return Complex<V>{sum + load<V>(from + s.freq_stride), sum + load<V>(from + 2 * s.freq_stride)};
      },
      [&](int y, int x, Vec<V> left, Vec<V> right) __attribute__((always_inline)) {
        if (y < s.y0 || y >= s.y1) return;
        float* const out = s.out + y * s.row + x * s.pixel;
        if (x >= s.x0) store<V>(out, load<V>(out) + left);
        if (x + 1 >= s.x0 && x + 1 < s.x1) store<V>(out + s.pixel, load<V>(out + s.pixel) + right);
      });
}

template <int V, int T, int A, int B>
void fft_taps(const TileTaps& t) {
  inverse<V, T, A, B>(
      t.work, t.kw,
      [&](int which)
          __attribute__((always_inline)) { return load<V>(t.in + which * t.freq_stride) * splat<V>(kRealScale<T>); },
      [&](int freq) __attribute__((always_inline)) {
        const float* const from = t.in + freq * t.freq_stride;
        const Vec<V> p = load<V>(from), q = load<V>(from + t.freq_stride), s = load<V>(from + 2 * t.freq_stride);
        const Vec<V> scale = splat<V>(kPairScale<T>);
        return Complex<V>{(p - q + s) * scale, -(q + s) * scale};
      },
      [&](int y, int x, Vec<V> left, Vec<V> right) __attribute__((always_inline)) {
        if (y >= t.kh) return;
        float* const out = t.taps + (y * t.kw + x) * V;
        store<V>(out, left);
        if (x + 1 < t.kw) store<V>(out + V, right);
      });
}

template <int V, int T, int A, int B>
constexpr TileForm fft_form() {
  static_assert(T == A * B && T % 2 == 0);
  return {T,
          T,
          4 + 3 * (T * T / 2 - 2),
          static_cast<size_t>(T) * T * V,
          fft_input<V, T, A, B>,
          fft_output<V, T, A, B>,
          fft_filter<V, T, A, B>,
          fft_gradient<V, T, A, B>,
          fft_spread<V, T, A, B>,
          fft_taps<V, T, A, B>};
}

template <int V>
FftForms make_fft(Isa isa) {
  FftForms all;
  all.isa = isa;
#define FASTCNN_FORM(T, A, B)                                                                         \
  all.halves[all.count] = {half_columns<V, T, A, B>, half_row<V, T, A, B>, half_row_back<V, T, A, B>, \
                           half_columns_back<V, T, A, B>};                                            \
  all.forms[all.count++] = fft_form<V, T, A, B>();
  FASTCNN_FFT_SIZES(FASTCNN_FORM)
#undef FASTCNN_FORM
  return all;
}

}  // namespace
}  // namespace fastcnn
