// SIMD wrapper on the compilers' vector extensions: one source, one width per translation unit.
//
// V is the number of floats (8 or 16). Everything here has internal linkage on purpose: each kernel translation unit
// is compiled with other ISA flags, and a shared inline function could end up as the AVX-512 copy for every CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/region.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastcnn {
namespace {

template <int V>
struct VecType;
template <>
struct VecType<8> {
  typedef float type __attribute__((vector_size(32)));
  typedef float unaligned __attribute__((vector_size(32), aligned(4), may_alias));
  typedef int32_t itype __attribute__((vector_size(32)));
};
template <>
struct VecType<16> {
  typedef float type __attribute__((vector_size(64)));
  typedef float unaligned __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t itype __attribute__((vector_size(64)));
};
template <int V>
using Vec = typename VecType<V>::type;
template <int V>
using IVec = typename VecType<V>::itype;

template <int V>
[[gnu::always_inline]] inline Vec<V> load(const float* p) {
  return *reinterpret_cast<const typename VecType<V>::unaligned*>(p);
}
template <int V>
[[gnu::always_inline]] inline void store(float* p, Vec<V> v) {
  *reinterpret_cast<typename VecType<V>::unaligned*>(p) = v;
}
template <int V>
[[gnu::always_inline]] inline Vec<V> load_i16(const int16_t* p) {
  typedef int16_t Short __attribute__((vector_size(V * 2), aligned(2), may_alias));
  return __builtin_convertvector(__builtin_convertvector(*reinterpret_cast<const Short*>(p), IVec<V>), Vec<V>);
}
// Memory that will be wanted soon, fetched into L2 a few cache lines at a time by code that computes meanwhile.
struct Ahead {
  const char* at = nullptr;
  int lines = 0;  // per visit

  [[gnu::always_inline]] void visit() {
    for (int k = 0; k < lines; ++k) __builtin_prefetch(at + k * 64, 0, 2);
    at += lines * 64;
  }
};
// Part `part` of `parts` of a region, for `visits` visits; less than all where that would be too many lines at once.
[[gnu::always_inline]] inline Ahead ahead_part(Region region, int visits, ptrdiff_t part, ptrdiff_t parts) {
  constexpr ptrdiff_t kMostLines = 32;
  if (region.bytes == 0 || visits == 0) return {};
  const ptrdiff_t all = visits * parts, share = (region.bytes / 64 + all - 1) / all;
  const ptrdiff_t lines = share < kMostLines ? share : kMostLines, first = part * lines * visits * 64;
  if (first >= region.bytes) return {};
  return {static_cast<const char*>(region.data) + first, static_cast<int>(lines)};
}

template <int V>
[[gnu::always_inline]] inline Vec<V> splat(float x) {
  return x - Vec<V>{};  // compiles to one broadcast; x - 0 is x for every x, NaN and -0 included
}

// acc + x0 * w0 + x1 * w1, where a lane of x and w holds two bf16.
template <int V>
[[gnu::always_inline]] inline Vec<V> add_dots(Vec<V> acc, Vec<V> x, Vec<V> w) {
#if defined(__AVX512BF16__)
  if constexpr (V == 16) return (Vec<V>)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)w);
#endif
  const IVec<V> upper = IVec<V>{} - 0x10000, xi = (IVec<V>)x, wi = (IVec<V>)w;
  acc += (Vec<V>)(xi << 16) * (Vec<V>)(wi << 16);
  return acc + (Vec<V>)(xi & upper) * (Vec<V>)(wi & upper);
}

// max(bound, x): a NaN in x survives, as in torch.
template <int V>
[[gnu::always_inline]] inline Vec<V> max_nan(Vec<V> bound, Vec<V> x) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return (Vec<V>)_mm512_max_ps((__m512)bound, (__m512)x);
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) return (Vec<V>)_mm256_max_ps((__m256)bound, (__m256)x);
#endif
  return bound > x ? bound : x;
}
template <int V>
[[gnu::always_inline]] inline Vec<V> min_nan(Vec<V> bound, Vec<V> x) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return (Vec<V>)_mm512_min_ps((__m512)bound, (__m512)x);
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) return (Vec<V>)_mm256_min_ps((__m256)bound, (__m256)x);
#endif
  return bound < x ? bound : x;
}

template <int V>
[[gnu::always_inline]] inline Vec<V> sqrt(Vec<V> x) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return (Vec<V>)_mm512_sqrt_ps((__m512)x);
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) return (Vec<V>)_mm256_sqrt_ps((__m256)x);
#endif
  for (int l = 0; l < V; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
}

// Round to nearest integer, ties to even, for |x| < 2^22 (the 1.5 * 2^23 trick).
template <int V>
[[gnu::always_inline]] inline Vec<V> round_even(Vec<V> x) {
  const Vec<V> magic = splat<V>(12582912.0f);
  return (x + magic) - magic;
}

// e^x with about 1 ulp error: split x = n ln2 + r, degree-6 polynomial in r (Cephes expf coefficients).
template <int V>
[[gnu::always_inline]] inline Vec<V> exp(Vec<V> x) {
  const Vec<V> nan = x;
  x = max_nan<V>(splat<V>(-104.0f), min_nan<V>(splat<V>(89.0f), x));  // e^-104 rounds to 0, e^89 to infinity
  const Vec<V> n = round_even<V>(x * splat<V>(1.44269504088896341f));
  Vec<V> r = x - n * splat<V>(0.693359375f);
  r = r - n * splat<V>(-2.12194440e-4f);
  Vec<V> p = splat<V>(1.9875691500e-4f);
  p = p * r + splat<V>(1.3981999507e-3f);
  p = p * r + splat<V>(8.3334519073e-3f);
  p = p * r + splat<V>(4.1665795894e-2f);
  p = p * r + splat<V>(1.6666665459e-1f);
  p = p * r + splat<V>(5.0000001201e-1f);
  p = p * r * r + r + splat<V>(1.0f);
  // 2^n in two factors: each is a normal number, their product may overflow or be subnormal as e^x itself does.
  const IVec<V> whole = __builtin_convertvector(n, IVec<V>), half = whole >> 1;
  const IVec<V> bits1 = (half + 127) << 23, bits2 = (whole - half + 127) << 23;
  Vec<V> scale1, scale2;
  std::memcpy(&scale1, &bits1, sizeof scale1);
  std::memcpy(&scale2, &bits2, sizeof scale2);
  const Vec<V> result = p * scale1 * scale2;
  return nan == nan ? result : nan;
}

template <int V>
[[gnu::always_inline]] inline Vec<V> sigmoid(Vec<V> x) {
  return splat<V>(1.0f) / (splat<V>(1.0f) + exp<V>(-x));
}

// tanh: the exponential form away from zero, an odd polynomial (Cephes tanhf) where it would cancel.
template <int V>
[[gnu::always_inline]] inline Vec<V> tanh(Vec<V> x) {
  const Vec<V> ax = x < 0.0f ? -x : x;
  const Vec<V> e = exp<V>(-(ax + ax));
  Vec<V> large = (splat<V>(1.0f) - e) / (splat<V>(1.0f) + e);
  large = x < 0.0f ? -large : large;
  const Vec<V> z = x * x;
  Vec<V> p = splat<V>(-5.70498872745e-3f);
  p = p * z + splat<V>(2.06390887954e-2f);
  p = p * z + splat<V>(-5.37397155531e-2f);
  p = p * z + splat<V>(1.33314422036e-1f);
  p = p * z + splat<V>(-3.33332819422e-1f);
  const Vec<V> small = p * z * x + x;
  return ax < 0.625f ? small : large;
}

// erf by Abramowitz and Stegun 7.1.26 is too coarse for 1e-6; this is the rational approximation used by Eigen and
// XLA for float (clamped to [-4, 4]), error about 1e-7.
template <int V>
[[gnu::always_inline]] inline Vec<V> erf(Vec<V> x) {
  x = max_nan<V>(splat<V>(-4.0f), min_nan<V>(splat<V>(4.0f), x));
  const Vec<V> z = x * x;
  Vec<V> p = splat<V>(-2.72614225801306e-10f);
  p = p * z + splat<V>(2.77068142495902e-08f);
  p = p * z + splat<V>(-2.10102402082508e-06f);
  p = p * z + splat<V>(-5.69250639462346e-05f);
  p = p * z + splat<V>(-7.34990630326855e-04f);
  p = p * z + splat<V>(-2.95459980854025e-03f);
  p = p * z + splat<V>(-1.60960333262415e-02f);
  p = p * x;
  Vec<V> q = splat<V>(-1.45660718464996e-05f);
  q = q * z + splat<V>(-2.13374055278905e-04f);
  q = q * z + splat<V>(-1.68282697438203e-03f);
  q = q * z + splat<V>(-7.37332916720468e-03f);
  q = q * z + splat<V>(-1.42647390514189e-02f);
  return p / q;
}

// ln(1 + y) for y in [0, 1] (used by softplus and mish): atanh series in s = y / (2 + y), |s| <= 1/3.
template <int V>
[[gnu::always_inline]] inline Vec<V> log1p01(Vec<V> y) {
  const Vec<V> s = y / (y + splat<V>(2.0f));
  const Vec<V> z = s * s;
  Vec<V> p = splat<V>(1.0f / 15);
  p = p * z + splat<V>(1.0f / 13);
  p = p * z + splat<V>(1.0f / 11);
  p = p * z + splat<V>(1.0f / 9);
  p = p * z + splat<V>(1.0f / 7);
  p = p * z + splat<V>(1.0f / 5);
  p = p * z + splat<V>(1.0f / 3);
  p = p * z + splat<V>(1.0f);
  return (s + s) * p;
}

template <int V>
[[gnu::always_inline]] inline Vec<V> softplus(Vec<V> x) {
  const Vec<V> ax = x < 0.0f ? -x : x;
  return max_nan<V>(Vec<V>{}, x) + log1p01<V>(exp<V>(-ax));
}

}  // namespace
}  // namespace fastcnn
