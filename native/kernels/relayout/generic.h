// Maps in rows to channel blocks and back, V x V numbers at a time. Included once per ISA.
#pragma once

#include "base/transpose.h"
#include "kernels/relayout/relayout.h"

namespace fastcnn {
namespace {

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
