// Expansion of 16-bit weights, to memory or into products. Included once per ISA.
#pragma once

#include "base/simd.h"
#include "kernels/unpack/unpack.h"

namespace fastcnn {
namespace {

constexpr int kDotAhead = 3 * kUnpackAhead / 4;  // nothing to bridge: the stream never pauses

template <int V, int NV>
void unpack_rows(const int16_t* q, const float* scale, int rows, float* out) {
  Vec<V> s[NV];
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) s[j] = load<V>(scale + j * V);
  for (int k = 0; k < rows; ++k) {
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      if (j * V % 32 == 0) __builtin_prefetch(q + j * V + kUnpackAhead);
      store<V>(out + j * V, load_i16<V>(q + j * V) * s[j]);
    }
    q += NV * V;
    out += NV * V;
  }
}

// The sums of one row of scales are scaled once: the products are of the codes themselves.
template <int V, int NV>
void dot_rows(const int16_t* q, const float* scale, const float* x, int rows, float* out) {
  Vec<V> total[NV];
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) total[j] = load<V>(out + j * V);
  for (int row = 0; row < rows; row += kScaleRows, scale += NV * V) {
    const int last = row + kScaleRows < rows ? row + kScaleRows : rows;
    Vec<V> acc[NV] = {};
    for (int k = row; k < last; ++k) {
      const Vec<V> xk = splat<V>(x[k]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        if (j * V % 32 == 0) __builtin_prefetch(q + j * V + kDotAhead);
        acc[j] += xk * load_i16<V>(q + j * V);
      }
      q += NV * V;
    }
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) total[j] += acc[j] * load<V>(scale + j * V);
  }
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) store<V>(out + j * V, total[j]);
}

template <int V>
void dot_i16(const int16_t* q, const float* scale, const float* x, int rows, int vectors, float* out) {
  if (vectors == 8) return dot_rows<V, 8>(q, scale, x, rows, out);
  if (vectors == 4) return dot_rows<V, 4>(q, scale, x, rows, out);
  if (vectors == 3) return dot_rows<V, 3>(q, scale, x, rows, out);
  if (vectors == 2) return dot_rows<V, 2>(q, scale, x, rows, out);
  dot_rows<V, 1>(q, scale, x, rows, out);
}

template <int V>
void unpack_i16(const int16_t* q, const float* scale, int rows, int vectors, float* out) {
  if (vectors == 8) return unpack_rows<V, 8>(q, scale, rows, out);
  if (vectors == 4) return unpack_rows<V, 4>(q, scale, rows, out);
  if (vectors == 3) return unpack_rows<V, 3>(q, scale, rows, out);
  if (vectors == 2) return unpack_rows<V, 2>(q, scale, rows, out);
  unpack_rows<V, 1>(q, scale, rows, out);
}

template <int V>
UnpackKernels make_unpack(Isa isa) {
  return {isa, V, unpack_i16<V>, dot_i16<V>};
}

}  // namespace
}  // namespace fastcnn
