// The complex discrete Fourier transform of N = A * B points, in vectors: X[k] = sum over n of x[n] exp(-2 pi i k n /
// N).
//
// Short transforms are straight code in registers. With n = b + B a and k = a' + A b' the long one is, for every b, a
// short one over a; a factor exp(-2 pi i a' b / N) for each; and for every a' a short one over b (Cooley and Tukey
// 1965). The inverse, times N, is the transform with real and imaginary parts exchanged before and after.
#pragma once

#include <array>
#include <utility>

#include "base/simd.h"

namespace fastcnn {
namespace {

struct Root {
  double re, im;
};

// exp(-2 pi i k / n): exact where it is 0 or +-1, a Taylor series below 45 degrees elsewhere.
constexpr Root root_of_unity(int k, int n) {
  k %= n;
  const int eighth = 8 * k / n;  // of the circle
  // The angle from the nearest axis below or above, in units of 2 pi / (8 n): at most n.
  const int from = 8 * k - (eighth + (eighth & 1)) * n;
  const double x = 3.14159265358979323846 / 4 * from / n;
  double cosine = 0, sine = 0, term = 1;
  for (int i = 0; i < 24; ++i) {
    (i % 2 == 0 ? cosine : sine) += i % 4 < 2 ? term : -term;
    term = term * x / (i + 1);
  }
  const int quarter = (eighth + 1) / 2 % 4;
  const double c[4] = {cosine, -sine, -cosine, sine}, s[4] = {sine, cosine, -sine, -cosine};
  return {c[quarter], -s[quarter]};
}

template <int V>
struct Complex {
  Vec<V> re, im;
};
template <int V>
[[gnu::always_inline]] inline Complex<V> operator+(Complex<V> a, Complex<V> b) {
  return {a.re + b.re, a.im + b.im};
}
template <int V>
[[gnu::always_inline]] inline Complex<V> operator-(Complex<V> a, Complex<V> b) {
  return {a.re - b.re, a.im - b.im};
}
template <int V>
[[gnu::always_inline]] inline Complex<V> scaled(Complex<V> a, float s) {
  return {a.re * splat<V>(s), a.im * splat<V>(s)};
}
// i times a.
template <int V>
[[gnu::always_inline]] inline Complex<V> turned(Complex<V> a) {
  return {-a.im, a.re};
}
template <int V>
[[gnu::always_inline]] inline Complex<V> times(Complex<V> a, float re, float im) {
  return {a.re * splat<V>(re) - a.im * splat<V>(im), a.re * splat<V>(im) + a.im * splat<V>(re)};
}

template <int N, class F>
[[gnu::always_inline]] inline void fft_unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// In place, natural order.
template <int N>
struct Short;
template <>
struct Short<1> {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&)[1]) {}
};
template <>
struct Short<2> {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&x)[2]) {
    const Complex<V> sum = x[0] + x[1];
    x[1] = x[0] - x[1];
    x[0] = sum;
  }
};
template <>
struct Short<3> {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&x)[3]) {
    constexpr float kSine = static_cast<float>(-root_of_unity(1, 3).im);
    const Complex<V> sum = x[1] + x[2], middle = x[0] + scaled(sum, -0.5f);
    const Complex<V> side = turned(scaled(x[2] - x[1], kSine));
    x[0] = x[0] + sum;
    x[1] = middle + side;
    x[2] = middle - side;
  }
};
template <>
struct Short<4> {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&x)[4]) {
    const Complex<V> a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = turned(x[3] - x[1]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  }
};
template <>
struct Short<5> {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&x)[5]) {
    constexpr Root w1 = root_of_unity(1, 5), w2 = root_of_unity(2, 5);
    constexpr float c1 = static_cast<float>(w1.re), s1 = static_cast<float>(w1.im);
    constexpr float c2 = static_cast<float>(w2.re), s2 = static_cast<float>(w2.im);
    const Complex<V> p = x[1] + x[4], q = x[2] + x[3], u = x[1] - x[4], v = x[2] - x[3];
    const Complex<V> a = x[0] + scaled(p, c1) + scaled(q, c2), b = x[0] + scaled(p, c2) + scaled(q, c1);
    const Complex<V> d = turned(scaled(u, s1) + scaled(v, s2)), e = turned(scaled(u, s2) - scaled(v, s1));
    x[0] = x[0] + p + q;
    x[1] = a + d;
    x[2] = b + e;
    x[3] = b - e;
    x[4] = a - d;
  }
};
template <int A, int B>
struct ShortProduct {
  template <int V>
  [[gnu::always_inline]] static void run(Complex<V> (&x)[A * B]) {
    Complex<V> rows[B][A];
    fft_unroll<B>([&](auto b) __attribute__((always_inline)) {
      fft_unroll<A>([&](auto a) __attribute__((always_inline)) { rows[b][a] = x[b + B * a]; });
      Short<A>::template run<V>(rows[b]);
    });
    fft_unroll<A>([&](auto a) __attribute__((always_inline)) {
      Complex<V> column[B];
      fft_unroll<B>([&](auto b) __attribute__((always_inline)) {
        constexpr Root w = root_of_unity(a * b, A * B);
        if constexpr (w.im == 0.0 && w.re == 1.0) {
          column[b] = rows[b][a];
        } else if constexpr (a * b * 4 == A * B) {  // -i
          column[b] = {rows[b][a].im, -rows[b][a].re};
        } else {
          column[b] = times(rows[b][a], static_cast<float>(w.re), static_cast<float>(w.im));
        }
      });
      Short<B>::template run<V>(column);
      fft_unroll<B>([&](auto b) __attribute__((always_inline)) { x[a + A * b] = column[b]; });
    });
  }
};
template <>
struct Short<6> : ShortProduct<3, 2> {};
template <>
struct Short<8> : ShortProduct<4, 2> {};
template <>
struct Short<10> : ShortProduct<5, 2> {};

// load(n) and store(k, X[k]) for n, k = 0 ... A * B - 1, in whatever order.
template <int V, int A, int B, class Load, class Store>
[[gnu::always_inline]] inline void transform(Load load_point, Store store_point) {
  if constexpr (B == 1) {
    Complex<V> x[A];
    fft_unroll<A>([&](auto a) __attribute__((always_inline)) { x[a] = load_point(a); });
    Short<A>::template run<V>(x);
    fft_unroll<A>([&](auto a) __attribute__((always_inline)) { store_point(a, x[a]); });
  } else {
    static constexpr auto roots = [] {
      std::array<float, size_t{2} * A * B> w{};
      for (int b = 0; b < B; ++b) {
        for (int a = 0; a < A; ++a) {
          const Root r = root_of_unity(a * b, A * B);
          w[static_cast<size_t>(2 * (b * A + a))] = static_cast<float>(r.re);
          w[static_cast<size_t>(2 * (b * A + a) + 1)] = static_cast<float>(r.im);
        }
      }
      return w;
    }();
    alignas(64) float middle[2 * A * B * V];
#pragma GCC unroll 1
    for (int b = 0; b < B; ++b) {
      Complex<V> x[A];
      fft_unroll<A>([&](auto a) __attribute__((always_inline)) { x[a] = load_point(b + B * a); });
      Short<A>::template run<V>(x);
      const float* w = roots.data() + 2 * b * A;
      float* to = middle + 2 * b * V;
      fft_unroll<A>([&](auto a) __attribute__((always_inline)) {
        const Complex<V> y = a == 0 ? x[a] : times(x[a], w[2 * a], w[2 * a + 1]);
        store<V>(to + 2 * a * B * V, y.re);
        store<V>(to + 2 * a * B * V + V, y.im);
      });
    }
#pragma GCC unroll 1
    for (int a = 0; a < A; ++a) {
      Complex<V> x[B];
      const float* from = middle + 2 * a * B * V;
      fft_unroll<B>([&](auto b) __attribute__((always_inline)) {
        x[b] = {load<V>(from + 2 * b * V), load<V>(from + 2 * b * V + V)};
      });
      Short<B>::template run<V>(x);
      fft_unroll<B>([&](auto b) __attribute__((always_inline)) { store_point(a + A * b, x[b]); });
    }
  }
}

}  // namespace
}  // namespace fastcnn
