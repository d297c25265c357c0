// Exact Cook-Toom matrices of F(m, r) at compile time, from rational interpolation points.
//
// t = m + r - 1, finite points a_0 ... a_{t-2} and infinity; M_j(z) = prod_{i != j} (z - a_i), N_j = M_j(a_j).
//   AT (m x t): AT[i][j] = a_j^i, last column e_{m-1}
//   G  (t x r): row j = (1, a_j, ..., a_j^{r-1}) / N_j, last row e_{r-1}
//   BT (t x t): row j = coefficients of M_j, low degree first, then 0; last row = coefficients of prod_i (z - a_i)
// y = AT [(G g) * (BT d)] is the correlation of d with g (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308).
// The Python generator in fastcnn.methods.transforms.winograd is written independently; a test compares the two.
#pragma once

#include <cstdint>

namespace fastcnn {

struct Rational {
  int64_t num = 0, den = 1;
};

constexpr int64_t gcd64(int64_t a, int64_t b) {
  a = a < 0 ? -a : a;
  b = b < 0 ? -b : b;
  while (b != 0) {
    const int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}
constexpr Rational make(int64_t n, int64_t d) {
  const int64_t g = gcd64(n, d), s = d < 0 ? -1 : 1;
  return {s * n / g, s * d / g};
}
constexpr Rational operator*(Rational a, Rational b) { return make(a.num * b.num, a.den * b.den); }
constexpr Rational operator/(Rational a, Rational b) { return make(a.num * b.den, a.den * b.num); }
constexpr Rational operator-(Rational a, Rational b) { return make(a.num * b.den - b.num * a.den, a.den * b.den); }
constexpr double to_double(Rational a) { return static_cast<double>(a.num) / static_cast<double>(a.den); }

template <int M_, int R_>
struct WinogradMatrices {
  static constexpr int M = M_, R = R_, T = M + R - 1;
  double at[M][T] = {}, g[T][R] = {}, bt[T][T] = {};
};

template <int M, int R>
constexpr WinogradMatrices<M, R> winograd_matrices(const Rational (&points)[M + R - 2]) {
  constexpr int T = M + R - 1;
  WinogradMatrices<M, R> w;
  for (int j = 0; j < T; ++j) {
    // Coefficients of prod over i != j (finite points); for j = T - 1 over all of them.
    Rational poly[T + 1] = {};
    poly[0] = {1, 1};
    int degree = 0;
    Rational norm = {1, 1};
    for (int i = 0; i < T - 1; ++i) {
      if (i == j) continue;
      for (int k = degree + 1; k > 0; --k) poly[k] = poly[k - 1] - points[i] * poly[k];
      poly[0] = Rational{0, 1} - points[i] * poly[0];
      ++degree;
      if (j < T - 1) norm = norm * (points[j] - points[i]);
    }
    for (int k = 0; k < T; ++k) w.bt[j][k] = k <= degree ? to_double(poly[k]) : 0.0;
    if (j < T - 1) {
      Rational power = {1, 1};
      for (int k = 0; k < (M > R ? M : R); ++k) {
        if (k < M) w.at[k][j] = to_double(power);
        if (k < R) w.g[j][k] = to_double(power / norm);
        power = power * points[j];
      }
    } else {
      w.at[M - 1][j] = 1.0;
      w.g[j][R - 1] = 1.0;
    }
  }
  return w;
}

// Points: found by fastcnn.methods.transforms.winograd.search_points, least error first; +-pairs stand side by side, so
// that the transforms can share their even and odd halves.
inline constexpr Rational kPoints3[] = {{0, 1}, {1, 1}, {-1, 1}};
inline constexpr Rational kPoints5[] = {{0, 1}, {2, 3}, {-2, 3}, {3, 2}, {-3, 2}};
inline constexpr Rational kPoints7[] = {{0, 1}, {1, 1}, {-1, 1}, {1, 2}, {-1, 2}, {2, 1}, {-2, 1}};

inline constexpr Rational kPoints9[] = {{0, 1}, {2, 5}, {-2, 5}, {4, 5}, {-4, 5}, {5, 4}, {-5, 4}, {7, 3}, {-7, 3}};

// X(my, ry, mx, rx): the forms there are kernels for, square ones first.
#define FASTCNN_WINOGRAD_FORMS(X) \
  X(6, 3, 6, 3)                   \
  X(4, 3, 4, 3)                   \
  X(2, 3, 2, 3)                   \
  X(4, 5, 4, 5)                   \
  X(2, 5, 2, 5)                   \
  X(7, 2, 7, 2)                   \
  X(5, 2, 5, 2)                   \
  X(3, 2, 3, 2)                   \
  X(1, 1, 6, 3)                   \
  X(1, 1, 4, 3)                   \
  X(1, 1, 2, 3)                   \
  X(1, 1, 4, 5)                   \
  X(1, 1, 2, 5)                   \
  X(1, 1, 4, 7)                   \
  X(1, 1, 2, 7)                   \
  X(6, 3, 1, 1)                   \
  X(4, 3, 1, 1)                   \
  X(2, 3, 1, 1)                   \
  X(4, 5, 1, 1)                   \
  X(2, 5, 1, 1)                   \
  X(4, 7, 1, 1)                   \
  X(2, 7, 1, 1)

template <int M, int R>
struct WinogradForm;
// One axis left alone.
struct WinogradIdentity {
  static constexpr int M = 1, R = 1, T = 1;
  double at[1][1] = {{1.0}}, g[1][1] = {{1.0}}, bt[1][1] = {{1.0}};
};
template <>
struct WinogradForm<1, 1> {
  static constexpr WinogradIdentity w = {};
};
template <>
struct WinogradForm<2, 3> {
  static constexpr WinogradMatrices<2, 3> w = winograd_matrices<2, 3>(kPoints3);
};
template <>
struct WinogradForm<4, 3> {
  static constexpr WinogradMatrices<4, 3> w = winograd_matrices<4, 3>(kPoints5);
};
template <>
struct WinogradForm<6, 3> {
  static constexpr WinogradMatrices<6, 3> w = winograd_matrices<6, 3>(kPoints7);
};
template <>
struct WinogradForm<2, 5> {
  static constexpr WinogradMatrices<2, 5> w = winograd_matrices<2, 5>(kPoints5);
};
template <>
struct WinogradForm<4, 5> {
  static constexpr WinogradMatrices<4, 5> w = winograd_matrices<4, 5>(kPoints7);
};
template <>
struct WinogradForm<3, 2> {
  static constexpr WinogradMatrices<3, 2> w = winograd_matrices<3, 2>(kPoints3);
};
template <>
struct WinogradForm<5, 2> {
  static constexpr WinogradMatrices<5, 2> w = winograd_matrices<5, 2>(kPoints5);
};
template <>
struct WinogradForm<7, 2> {
  static constexpr WinogradMatrices<7, 2> w = winograd_matrices<7, 2>(kPoints7);
};
template <>
struct WinogradForm<2, 7> {
  static constexpr WinogradMatrices<2, 7> w = winograd_matrices<2, 7>(kPoints7);
};
template <>
struct WinogradForm<4, 7> {
  static constexpr WinogradMatrices<4, 7> w = winograd_matrices<4, 7>(kPoints9);
};

}  // namespace fastcnn
