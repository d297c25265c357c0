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

// Columns x0 ... x1 of a tile that has others, which are zero, into tmp; load(y, x) for every y.
template <int V, int T, int A, int B, class Load>
[[gnu::always_inline]] inline void columns(float* tmp, int x0, int x1, Load load_pixel) {
  alignas(64) float z[2 * T * V];
  for (int x = 0; x < T; x += 2) {
    if (x + 2 <= x0 || x >= x1) {
      for (int row = 0; row < T; ++row) {
        store<V>(place<V, T>(tmp, row, x), Vec<V>{});
        store<V>(place<V, T>(tmp, row, x + 1), Vec<V>{});
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
      store<V>(place<V, T>(tmp, half, x), v.re);
      store<V>(place<V, T>(tmp, half, x + 1), v.im);
    }
    for (int k = 1; k < T / 2; ++k) {
      const Complex<V> p = point(k), q = point(T - k);
      store<V>(place<V, T>(tmp, 2 * k, x), p.re + q.re);
      store<V>(place<V, T>(tmp, 2 * k + 1, x), p.im - q.im);
      store<V>(place<V, T>(tmp, 2 * k, x + 1), p.im + q.im);
      store<V>(place<V, T>(tmp, 2 * k + 1, x + 1), q.re - p.re);
    }
  }
}

// The rows of tmp: real(which of the four, value), complex(first of its products, value).
template <int V, int T, int A, int B, class Real, class Pair>
[[gnu::always_inline]] inline void rows(const float* tmp, Real real, Pair pair) {
  alignas(64) float z[2 * T * V];
  float* const from = const_cast<float*>(tmp);
  transform<V, A, B>(
      [&](int x) __attribute__((always_inline)) {
        return Complex<V>{load<V>(place<V, T>(from, 0, x)), load<V>(place<V, T>(from, 1, x))};
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
    real(half, v.re);
    real(2 + half, v.im);
  }
  for (int k = 1; k < T / 2; ++k) {
    const Complex<V> p = point(k), q = point(T - k);
    pair(edge_freq<T>(false, k), Complex<V>{p.re + q.re, p.im - q.im});
    pair(edge_freq<T>(true, k), Complex<V>{p.im + q.im, q.re - p.re});
  }
  for (int row = 1; row < T / 2; ++row) {
    transform<V, A, B>(
        [&](int x) __attribute__((always_inline)) {
          return Complex<V>{load<V>(place<V, T>(from, 2 * row, x)), load<V>(place<V, T>(from, 2 * row + 1, x))};
        },
        [&](int k, Complex<V> v) __attribute__((always_inline)) { pair(inner_freq<T>(row, k), v); });
  }
}

template <int V, int T, int A, int B>
void fft_input(const TileInput& i) {
  if (i.y0 <= 0 && i.x0 <= 0 && i.y1 >= T && i.x1 >= T) {
    columns<V, T, A, B>(i.work, 0, T, [&](int y, int x) __attribute__((always_inline)) {
      return load<V>(i.in + y * i.row + x * i.pixel);
    });
  } else {
    columns<V, T, A, B>(i.work, i.x0, i.x1, [&](int y, int x) __attribute__((always_inline)) {
      return y < i.y0 || y >= i.y1 ? Vec<V>{} : load<V>(i.in + y * i.row + x * i.pixel);
    });
  }
  rows<V, T, A, B>(
      i.work, [&](int which, Vec<V> v) __attribute__((always_inline)) { store<V>(i.out + which * i.freq_stride, v); },
      [&](int freq, Complex<V> v) __attribute__((always_inline)) {
        float* const to = i.out + freq * i.freq_stride;
        store<V>(to, v.re + v.im);
        store<V>(to + i.freq_stride, v.re);
        store<V>(to + 2 * i.freq_stride, v.im);
      });
}

template <int V, int T, int A, int B>
void fft_filter(const TileFilter& f) {
  columns<V, T, A, B>(f.work, 0, f.kw, [&](int y, int x) __attribute__((always_inline)) {
    return y < f.kh ? load<V>(f.taps + (y * f.kw + x) * V) : Vec<V>{};
  });
  // Both spectra have twice their complex frequencies, the output has them once.
  constexpr float kReal = 1.0f / (T * T), kPair = kReal / 4;
  rows<V, T, A, B>(
      f.work,
      [&](int which, Vec<V> v)
          __attribute__((always_inline)) { store<V>(f.out + which * f.freq_stride, v * splat<V>(kReal)); },
      [&](int freq, Complex<V> v) __attribute__((always_inline)) {
        float* const to = f.out + freq * f.freq_stride;
        const Vec<V> c = v.re * splat<V>(kPair), e = v.im * splat<V>(-kPair);
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

template <int V, int T, int A, int B>
void fft_output(const TileOutput& o) {
  const auto real = [&](int which) __attribute__((always_inline)) { return load<V>(o.in + which * o.freq_stride); };
  const auto pair = [&](int freq) __attribute__((always_inline)) {
    const float* const from = o.in + freq * o.freq_stride;
    const Vec<V> p = load<V>(from), q = load<V>(from + o.freq_stride), s = load<V>(from + 2 * o.freq_stride);
    return Complex<V>{p - s, p + q};
  };
  float* const tmp = o.work;
  const int even = (o.cols + 1) / 2 * 2;
  // Rows 0 and t/2: real sequences of x, in one transform.
  alignas(64) float z[2 * T * V];
  const auto put = [&](int k, Complex<V> v) __attribute__((always_inline)) {
    store<V>(z + 2 * k * V, v.re);
    store<V>(z + 2 * k * V + V, v.im);
  };
  const auto point = [&](int k) __attribute__((always_inline)) {
    return Complex<V>{load<V>(z + 2 * k * V), load<V>(z + 2 * k * V + V)};
  };
  for (int half = 0; half < 2; ++half) put(half * T / 2, {real(half), real(2 + half)});
  for (int k = 1; k < T / 2; ++k) {
    const Complex<V> p = pair(edge_freq<T>(false, k)), q = pair(edge_freq<T>(true, k));
    put(k, {p.re - q.im, p.im + q.re});
    put(T - k, {p.re + q.im, q.re - p.im});
  }
  transform<V, A, B>([&](int k) __attribute__((always_inline)) { return swapped(point(k)); },
                     [&](int x, Complex<V> v) __attribute__((always_inline)) {
                       if (x >= even) return;
                       store<V>(place<V, T>(tmp, 0, x), v.im);
                       store<V>(place<V, T>(tmp, 1, x), v.re);
                     });
  for (int row = 1; row < T / 2; ++row) {
    transform<V, A, B>([&](int k) __attribute__((always_inline)) { return swapped(pair(inner_freq<T>(row, k))); },
                       [&](int x, Complex<V> v) __attribute__((always_inline)) {
                         if (x >= even) return;
                         store<V>(place<V, T>(tmp, 2 * row, x), v.im);
                         store<V>(place<V, T>(tmp, 2 * row + 1, x), v.re);
                       });
  }
  // Two columns at once.
  const Vec<V> bias = o.bias != nullptr ? load<V>(o.bias) : Vec<V>{};
  const bool simple = o.residual == nullptr && (o.act->kind == Act::kClamp || o.act->kind == Act::kNone);
  const bool clamp = o.act->kind == Act::kClamp;
  const Vec<V> lo = splat<V>(clamp ? o.act->lo : -__builtin_inff()),
               hi = splat<V>(clamp ? o.act->hi : __builtin_inff());
  for (int x = 0; x < o.cols; x += 2) {
    for (int half = 0; half < 2; ++half) {
      put(half * T / 2, {load<V>(place<V, T>(tmp, half, x)), load<V>(place<V, T>(tmp, half, x + 1))});
    }
    for (int k = 1; k < T / 2; ++k) {
      const Complex<V> p = {load<V>(place<V, T>(tmp, 2 * k, x)), load<V>(place<V, T>(tmp, 2 * k + 1, x))};
      const Complex<V> q = {load<V>(place<V, T>(tmp, 2 * k, x + 1)), load<V>(place<V, T>(tmp, 2 * k + 1, x + 1))};
      put(k, {p.re - q.im, p.im + q.re});
      put(T - k, {p.re + q.im, q.re - p.im});
    }
    float* const out = o.out + x * o.pixel;
    const bool both = x + 1 < o.cols;
    transform<V, A, B>([&](int k) __attribute__((always_inline)) { return swapped(point(k)); },
                       [&](int y, Complex<V> v) __attribute__((always_inline)) {
                         if (y >= o.rows) return;
                         Vec<V> left = v.im + bias, right = v.re + bias;
                         if (simple) {
                           left = min_nan<V>(hi, max_nan<V>(lo, left));
                           right = min_nan<V>(hi, max_nan<V>(lo, right));
                         }
                         store<V>(out + y * o.row, left);
                         if (both) store<V>(out + y * o.row + o.pixel, right);
                       });
  }
  if (simple) return;
  TileOutput rest = o;
  rest.bias = nullptr;  // added already
  for (int y = 0; y < o.rows; ++y) {
    float* const line = o.out + y * o.row;
    finish<V>(line, o.cols, rest, o.residual == nullptr ? nullptr : o.residual + y * o.res_row);
  }
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
          fft_filter<V, T, A, B>};
}

template <int V>
FftForms make_fft(Isa isa) {
  FftForms all;
  all.isa = isa;
#define FASTCNN_FORM(T, A, B) all.forms[all.count++] = fft_form<V, T, A, B>();
  FASTCNN_FFT_SIZES(FASTCNN_FORM)
#undef FASTCNN_FORM
  return all;
}

}  // namespace
}  // namespace fastcnn
