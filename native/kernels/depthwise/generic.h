#pragma once

#include "base/simd.h"
#include "kernels/depthwise/depthwise.h"

namespace fastcnn {
namespace {

// K = 0: kernel size, stride and dilation from the shape. P outputs at once.
template <int V, int K, int S, int P>
[[gnu::always_inline]] inline void depthwise_tile(const DepthwiseShape& s, const DepthwiseArgs& a, const float* in,
                                                  float* out, const float* res, Vec<V> bias) {
  Vec<V> acc[P];
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) acc[i] = bias;
  const float* w = a.weights;
  if constexpr (K != 0) {
#pragma GCC unroll 1
    for (int ky = 0; ky < K; ++ky) {
      const float* row = in + ky * s.in_tap_row;
#pragma GCC unroll 16
      for (int kx = 0; kx < K; ++kx) {
        const Vec<V> wv = load<V>(w + kx * V);
#pragma GCC unroll 16
        for (int i = 0; i < P; ++i) acc[i] += load<V>(row + (i * S + kx) * V) * wv;
      }
      w += K * V;
    }
  } else {
    for (int ky = 0; ky < s.kernel_h; ++ky) {
      const float* row = in + ky * s.in_tap_row;
      for (int kx = 0; kx < s.kernel_w; ++kx, w += V) {
        const Vec<V> wv = load<V>(w);
#pragma GCC unroll 16
        for (int i = 0; i < P; ++i) acc[i] += load<V>(row + (i * s.stride_w + kx * s.dilation_w) * V) * wv;
      }
    }
  }
  const bool simple = s.act.kind == Act::kClamp || s.act.kind == Act::kNone;
  const bool after = simple && a.residual != nullptr && s.act_before_residual;
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) {
    Vec<V> v = acc[i];
    if (a.residual != nullptr && !s.act_before_residual) v += load<V>(res + i * V);
    if (s.act.kind == Act::kClamp) {
      v = min_nan<V>(splat<V>(s.act.hi), max_nan<V>(splat<V>(s.act.lo), v));
    }
    if (after) v += load<V>(res + i * V);
    store<V>(out + i * V, v);
  }
  if (!simple) {
    activate_run<V>(out, P, s.act, a.slope);
    if (a.residual != nullptr && s.act_before_residual) {
#pragma GCC unroll 1
      for (int i = 0; i < P; ++i) store<V>(out + i * V, load<V>(out + i * V) + load<V>(res + i * V));
    }
  }
}

template <int V, int K, int S, int P>
void depthwise_rows(const DepthwiseShape& s, const DepthwiseArgs& a) {
  const Vec<V> bias = a.bias != nullptr ? load<V>(a.bias) : Vec<V>{};
  for (int y = a.row0; y < a.row1; ++y) {
    const float* in = a.in + y * s.in_out_row;
    float* out = a.out + y * s.out_row;
    const float* res = a.residual == nullptr ? out : a.residual + y * s.res_row;
    int x = 0;
    for (; x + P <= s.out_w; x += P) {
      depthwise_tile<V, K, S, P>(s, a, in + x * s.stride_w * V, out + x * V, res + x * V, bias);
    }
    for (; x < s.out_w; ++x) {
      depthwise_tile<V, K, S, 1>(s, a, in + x * s.stride_w * V, out + x * V, res + x * V, bias);
    }
  }
}

template <int V, int P>
void depthwise_run(const DepthwiseShape& s, const DepthwiseArgs& a) {
  const bool square = s.kernel_h == s.kernel_w && s.dilation_w == 1;
  if (square && s.kernel_h == 3 && s.stride_w == 1) return depthwise_rows<V, 3, 1, P>(s, a);
  if (square && s.kernel_h == 3 && s.stride_w == 2) return depthwise_rows<V, 3, 2, P>(s, a);
  if (square && s.kernel_h == 5 && s.stride_w == 1) return depthwise_rows<V, 5, 1, P>(s, a);
  if (square && s.kernel_h == 5 && s.stride_w == 2) return depthwise_rows<V, 5, 2, P>(s, a);
  if (square && s.kernel_h == 7 && s.stride_w == 1) return depthwise_rows<V, 7, 1, P>(s, a);
  if (square && s.kernel_h == 7 && s.stride_w == 2) return depthwise_rows<V, 7, 2, P>(s, a);
  depthwise_rows<V, 0, 0, P>(s, a);
}

template <int V>
DepthwiseKernels make_depthwise(Isa isa) {
  return {isa, V, depthwise_run<V, (V == 16 ? 7 : 4)>};
}

}  // namespace
}  // namespace fastcnn
