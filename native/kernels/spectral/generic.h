// Row transforms on vectors of V floats. Included once per ISA.
//
// A transform of points = A * B: with n = b + B a and k = a' + A b', for V neighbouring b at a time a short transform
// over a, a factor each, and a transposition of V x V numbers; then for V neighbouring a' at a time a short transform
// over b, whose output is in order.
#pragma once

#include "base/transpose.h"
#include "kernels/fft/codelet.h"
#include "kernels/spectral/spectral.h"

namespace fastcnn {
namespace {

// X(length, its two factors), as codelet.h wants them.
#define FASTCNN_SPECTRAL_SIZES(X) X(8, 8, 1) X(16, 4, 4) X(24, 6, 4) X(32, 8, 4) X(40, 8, 5) X(48, 8, 6) X(64, 8, 8)

struct SpectralPass {
  const float *in_re, *in_im;
  float *out_re, *out_im;
  const float* roots;
  int first, second;  // A, B
};

// Over a; out[b][a'].
template <int V, int A, int A1, int A2>
void spectral_first(const SpectralPass& p) {
  const int B = p.second, points = A * B;
  alignas(64) float re[A * V], im[A * V];
  for (int b = 0; b < B; b += V) {
    transform<V, A1, A2>(
        [&](int a) __attribute__((always_inline)) {
          return Complex<V>{load<V>(p.in_re + a * B + b), load<V>(p.in_im + a * B + b)};
        },
        [&](int a, Complex<V> x) __attribute__((always_inline)) {
          const Vec<V> c = load<V>(p.roots + a * B + b), s = load<V>(p.roots + points + a * B + b);
          store<V>(re + a * V, x.re * c - x.im * s);
          store<V>(im + a * V, x.re * s + x.im * c);
        });
    for (int a = 0; a < A; a += V) {
      for (int part = 0; part < 2; ++part) {
        const float* from = (part == 0 ? re : im) + a * V;
        float* to = (part == 0 ? p.out_re : p.out_im) + b * A + a;
        Vec<V> x[V];
#pragma GCC unroll 16
        for (int i = 0; i < V; ++i) x[i] = load<V>(from + i * V);
        transpose<V>(x);
#pragma GCC unroll 16
        for (int i = 0; i < V; ++i) store<V>(to + i * A, x[i]);
      }
    }
  }
}

// Over b; out[b'][a'].
template <int V, int B, int B1, int B2>
void spectral_second(const SpectralPass& p) {
  const int A = p.first;
  for (int a = 0; a < A; a += V) {
    transform<V, B1, B2>(
        [&](int b) __attribute__((always_inline)) {
          return Complex<V>{load<V>(p.in_re + b * A + a), load<V>(p.in_im + b * A + a)};
        },
        [&](int b, Complex<V> x) __attribute__((always_inline)) {
          store<V>(p.out_re + b * A + a, x.re);
          store<V>(p.out_im + b * A + a, x.im);
        });
  }
}

template <int V>
void spectral_fft(const float* in_re, const float* in_im, float* out_re, float* out_im, const float* roots, int points,
                  float* work) {
  int first = 0, second = 0;
  if (!spectral_split(V, points, first, second)) return;
  const SpectralPass one{in_re, in_im, work, work + points, roots, first, second};
  const SpectralPass two{work, work + points, out_re, out_im, roots, first, second};
#define FASTCNN_SPECTRAL_PASS(t, a, b)               \
  if constexpr (t % V == 0) {                        \
    if (first == t) spectral_first<V, t, a, b>(one); \
  }
  FASTCNN_SPECTRAL_SIZES(FASTCNN_SPECTRAL_PASS)
#undef FASTCNN_SPECTRAL_PASS
#define FASTCNN_SPECTRAL_PASS(t, a, b)                 \
  if constexpr (t % V == 0) {                          \
    if (second == t) spectral_second<V, t, a, b>(two); \
  }
  FASTCNN_SPECTRAL_SIZES(FASTCNN_SPECTRAL_PASS)
#undef FASTCNN_SPECTRAL_PASS
}

template <int V>
[[gnu::always_inline]] inline Vec<V> reversed(Vec<V> x) {
  if constexpr (V == 16) {
    return __builtin_shuffle(x, IVec<V>{15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0});
  } else {
    return __builtin_shuffle(x, IVec<V>{7, 6, 5, 4, 3, 2, 1, 0});
  }
}

// sum + c x, c from `points` real and imaginary parts.
template <int V>
[[gnu::always_inline]] inline Complex<V> plus_times(Complex<V> sum, const float* c, int points, Complex<V> x) {
  const Vec<V> re = load<V>(c), im = load<V>(c + points);
  return {sum.re + re * x.re - im * x.im, sum.im + re * x.im + im * x.re};
}

template <int V>
void spectral_mix(const float* z_re, const float* z_im, float* out_re, float* out_im, const SpectralMix& mix,
                  int points) {
  for (int k = 0; k < points; k += V) {
    const int mirror = points - k - (V - 1);
    const Complex<V> z{load<V>(z_re + k), load<V>(z_im + k)};
    const Complex<V> m{reversed<V>(load<V>(z_re + mirror)), reversed<V>(load<V>(z_im + mirror))};
    Complex<V> sum{};
    if (mix.epsilon != nullptr) sum = {load<V>(mix.epsilon + k), load<V>(mix.epsilon + points + k)};
    sum = plus_times<V>(sum, mix.alpha + k, points, z);
    sum = plus_times<V>(sum, mix.beta + k, points, {m.re, -m.im});
    if (mix.gamma != nullptr) sum = plus_times<V>(sum, mix.gamma + k, points, {z.re, -z.im});
    if (mix.delta != nullptr) sum = plus_times<V>(sum, mix.delta + k, points, m);
    store<V>(out_re + k, sum.re);
    store<V>(out_im + k, sum.im);
  }
}

// Sums and differences of numbers `H` lanes apart.
template <int V, int H>
[[gnu::always_inline]] inline Vec<V> butterfly_lanes(Vec<V> x) {
  IVec<V> other;
  Vec<V> sign;
  for (int i = 0; i < V; ++i) {
    other[i] = i ^ H;
    sign[i] = (i & H) != 0 ? -1.0f : 1.0f;
  }
  return sign * x + __builtin_shuffle(x, other);
}

template <int V>
void spectral_hadamard(float* row, int n) {
  if (n < V) {
    for (int h = 1; h < n; h *= 2) {
      for (int i = 0; i < n; ++i) {
        if ((i & h) != 0) continue;
        const float a = row[i], b = row[i + h];
        row[i] = a + b;
        row[i + h] = a - b;
      }
    }
    return;
  }
  for (int i = 0; i < n; i += V) {
    Vec<V> x = load<V>(row + i);
    x = butterfly_lanes<V, 1>(x);
    x = butterfly_lanes<V, 2>(x);
    x = butterfly_lanes<V, 4>(x);
    if constexpr (V == 16) x = butterfly_lanes<V, 8>(x);
    store<V>(row + i, x);
  }
  int h = V;
  for (; 4 * h <= n; h *= 4) {  // two levels at a time
    for (int i = 0; i < n; i += 4 * h) {
      for (int j = i; j < i + h; j += V) {
        const Vec<V> a = load<V>(row + j), b = load<V>(row + j + h), c = load<V>(row + j + 2 * h),
                     d = load<V>(row + j + 3 * h);
        const Vec<V> p = a + b, q = a - b, r = c + d, s = c - d;
        store<V>(row + j, p + r);
        store<V>(row + j + h, q + s);
        store<V>(row + j + 2 * h, p - r);
        store<V>(row + j + 3 * h, q - s);
      }
    }
  }
  if (2 * h <= n) {
    for (int j = 0; j < h; j += V) {
      const Vec<V> a = load<V>(row + j), b = load<V>(row + j + h);
      store<V>(row + j, a + b);
      store<V>(row + j + h, a - b);
    }
  }
}

template <int V>
void small_product(const float* x, ptrdiff_t x_stride, int count, const float* matrix, int width, float* out) {
  int k = 0;
  for (; k + 2 * V <= width; k += 2 * V) {
    Vec<V> a{}, b{};
    for (int j = 0; j < count; ++j) {
      const Vec<V> value = splat<V>(x[j * x_stride]);
      a += value * load<V>(matrix + j * width + k);
      b += value * load<V>(matrix + j * width + k + V);
    }
    store<V>(out + k, a);
    store<V>(out + k + V, b);
  }
  if (k < width) {
    Vec<V> a{}, b{};  // two sums, for the latency of an addition
    int j = 0;
    for (; j + 2 <= count; j += 2) {
      a += splat<V>(x[j * x_stride]) * load<V>(matrix + j * width + k);
      b += splat<V>(x[(j + 1) * x_stride]) * load<V>(matrix + (j + 1) * width + k);
    }
    if (j < count) a += splat<V>(x[j * x_stride]) * load<V>(matrix + j * width + k);
    store<V>(out + k, a + b);
  }
}

// R rows of one slot: products of complex numbers, or of two real ones side by side.
template <int V, int R, bool kReal>
[[gnu::always_inline]] inline void block_rows(const float* x, ptrdiff_t x_row, const float* w, int columns, float* y) {
  Vec<V> re[R] = {}, im[R] = {};
  for (int q = 0; q < columns; ++q, w += 2 * V) {
    const Vec<V> wr = load<V>(w), wi = load<V>(w + V);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec<V> xr = splat<V>(x[r * x_row + 2 * q]), xi = splat<V>(x[r * x_row + 2 * q + 1]);
      if constexpr (kReal) {
        re[r] += wr * xr;
        im[r] += wi * xi;
      } else {
        re[r] += wr * xr;
        re[r] -= wi * xi;
        im[r] += wr * xi;
        im[r] += wi * xr;
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    store<V>(y + r * 2 * V, re[r]);
    store<V>(y + r * 2 * V + V, im[r]);
  }
}

template <int V, bool kReal>
[[gnu::always_inline]] inline void block_slot(const BlockProduct& p, int slot) {
  constexpr int kRows = V == 16 ? 8 : 4;
  const float* const x = p.x + slot * p.x_slot;
  const float* const w = p.w + static_cast<ptrdiff_t>(slot) * p.columns * 2 * V;
  float* const y = p.y + static_cast<ptrdiff_t>(slot) * p.rows * 2 * V;
  int row = 0;
  for (; row + kRows <= p.rows; row += kRows) {
    block_rows<V, kRows, kReal>(x + row * p.x_row, p.x_row, w, p.columns, y + row * 2 * V);
  }
  for (; row + 2 <= p.rows; row += 2) {
    block_rows<V, 2, kReal>(x + row * p.x_row, p.x_row, w, p.columns, y + row * 2 * V);
  }
  if (row < p.rows) block_rows<V, 1, kReal>(x + row * p.x_row, p.x_row, w, p.columns, y + row * 2 * V);
}

template <int V>
void block_product(const BlockProduct& p) {
  if (p.slots == 0) return;
  block_slot<V, true>(p, 0);
  for (int slot = 1; slot < p.slots; ++slot) block_slot<V, false>(p, slot);
}

template <int V>
SpectralKernels make_spectral(Isa isa) {
  return {isa, V, spectral_fft<V>, spectral_mix<V>, spectral_hadamard<V>, small_product<V>, block_product<V>};
}

}  // namespace
}  // namespace fastcnn
