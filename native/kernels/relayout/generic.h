// A V x V transposition is log2(V) rounds, each interleaving row i with row i + V/2. Included once per ISA.
#pragma once

#include "base/simd.h"
#include "kernels/relayout/relayout.h"

namespace fastcnn {
namespace {

// Lanes a0 b0 a1 b1 ... of the lower halves of a and b, and of the upper ones.
template <int V>
[[gnu::always_inline]] inline void interleave(Vec<V> a, Vec<V> b, Vec<V>& low, Vec<V>& high) {
  if constexpr (V == 16) {
    low = __builtin_shuffle(a, b, IVec<V>{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
    high = __builtin_shuffle(a, b, IVec<V>{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
  } else {
    low = __builtin_shuffle(a, b, IVec<V>{0, 8, 1, 9, 2, 10, 3, 11});
    high = __builtin_shuffle(a, b, IVec<V>{4, 12, 5, 13, 6, 14, 7, 15});
  }
}

template <int V>
[[gnu::always_inline]] inline void transpose(Vec<V> (&x)[V]) {
#pragma GCC unroll 4
  for (int round = 1; round < V; round *= 2) {
    Vec<V> y[V];
#pragma GCC unroll 16
    for (int i = 0; i < V / 2; ++i) interleave<V>(x[i], x[i + V / 2], y[2 * i], y[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < V; ++i) x[i] = y[i];
  }
}

template <int V>
[[gnu::always_inline]] inline void block_to_blocked(const float* in, ptrdiff_t in_plane, int channels, float* out) {
  Vec<V> x[V];
  if (channels == V) {
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) x[l] = load<V>(in + l * in_plane);
  } else {
    for (int l = 0; l < V; ++l) x[l] = l < channels ? load<V>(in + l * in_plane) : Vec<V>{};
  }
  transpose<V>(x);
#pragma GCC unroll 16
  for (int i = 0; i < V; ++i) store<V>(out + i * V, x[i]);
}

template <int V>
[[gnu::always_inline]] inline void block_to_planar(const float* in, int channels, float* out, ptrdiff_t out_plane) {
  Vec<V> x[V];
#pragma GCC unroll 16
  for (int i = 0; i < V; ++i) x[i] = load<V>(in + i * V);
  transpose<V>(x);
  if (channels == V) {
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) store<V>(out + l * out_plane, x[l]);
  } else {
    for (int l = 0; l < channels; ++l) store<V>(out + l * out_plane, x[l]);
  }
}

// The last block overlaps the one before it; a row shorter than a block goes number by number.
template <int V>
void to_blocked(const float* in, ptrdiff_t in_plane, int channels, ptrdiff_t pixels, float* out) {
  if (pixels < V) {
    for (ptrdiff_t p = 0; p < pixels; ++p, out += V) {
      for (int l = 0; l < V; ++l) out[l] = l < channels ? in[l * in_plane + p] : 0.0f;
    }
    return;
  }
  for (ptrdiff_t p = 0; p < pixels; p += V) {
    const ptrdiff_t first = p + V <= pixels ? p : pixels - V;
    block_to_blocked<V>(in + first, in_plane, channels, out + first * V);
  }
}

template <int V>
void to_planar(const float* in, ptrdiff_t pixels, int channels, float* out, ptrdiff_t out_plane) {
  if (pixels < V) {
    for (ptrdiff_t p = 0; p < pixels; ++p, in += V) {
      for (int l = 0; l < channels; ++l) out[l * out_plane + p] = in[l];
    }
    return;
  }
  for (ptrdiff_t p = 0; p < pixels; p += V) {
    const ptrdiff_t first = p + V <= pixels ? p : pixels - V;
    block_to_planar<V>(in + first * V, channels, out + first, out_plane);
  }
}

template <int V>
RelayoutKernels make_relayout(Isa isa) {
  return {isa, V, to_blocked<V>, to_planar<V>};
}

}  // namespace
}  // namespace fastcnn
