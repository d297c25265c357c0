#pragma once

#include "base/simd.h"
#include "kernels/pool/pool.h"

namespace fastcnn {
namespace {

struct Window {
  int begin, end, step, full;  // begin <= i < end clipped to the map; full: length the average may count
};

// The window of output i along one axis. Clipped below at the first tap inside the map.
[[gnu::always_inline]] inline Window window(const PoolShape& s, int i, int size, int out_size, int kernel, int stride,
                                            int dilation, int pad, int pad_after) {
  if (s.adaptive) {
    const int begin = static_cast<int>(static_cast<int64_t>(i) * size / out_size);
    const int end = static_cast<int>((static_cast<int64_t>(i + 1) * size + out_size - 1) / out_size);
    return {begin, end, 1, end - begin};
  }
  int begin = i * stride - pad;
  int end = begin + (kernel - 1) * dilation + 1;
  const int padded_end = end < size + pad_after ? end : size + pad_after;
  const int full = padded_end - begin;
  if (begin < 0) begin += (-begin + dilation - 1) / dilation * dilation;
  if (end > size) end = size;
  return {begin, end, dilation, full};
}

template <int V>
void pool_run(const PoolShape& s, const float* in, float* out, int row0, int row1) {
  for (int oy = row0; oy < row1; ++oy) {
    const Window wy = window(s, oy, s.h, s.out_h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top, s.pad_bottom);
    for (int ox = 0; ox < s.out_w; ++ox) {
      const Window wx = window(s, ox, s.w, s.out_w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left, s.pad_right);
      if (s.kind == PoolKind::kMax) {
        Vec<V> best = splat<V>(-__builtin_inff());
        for (int y = wy.begin; y < wy.end; y += wy.step) {
          for (int x = wx.begin; x < wx.end; x += wx.step) {
            const Vec<V> v = load<V>(in + y * s.in_row + x * V);
            const IVec<V> take = (v > best) | (v != v);  // a NaN wins and stays, as in torch
            best = take ? v : best;
          }
        }
        store<V>(out + oy * s.out_row + ox * V, best);
        continue;
      }
      // Row sums first, then their sum: shorter chains of additions, and smaller error on large maps.
      Vec<V> sum = {};
      for (int y = wy.begin; y < wy.end; ++y) {
        const float* row = in + y * s.in_row;
        Vec<V> s0 = {}, s1 = {}, s2 = {}, s3 = {};
        int x = wx.begin;
        for (; x + 4 <= wx.end; x += 4) {
          s0 += load<V>(row + x * V);
          s1 += load<V>(row + (x + 1) * V);
          s2 += load<V>(row + (x + 2) * V);
          s3 += load<V>(row + (x + 3) * V);
        }
        for (; x < wx.end; ++x) s0 += load<V>(row + x * V);
        sum += (s0 + s1) + (s2 + s3);
      }
      const int inside = (wy.end > wy.begin ? wy.end - wy.begin : 0) * (wx.end > wx.begin ? wx.end - wx.begin : 0);
      const int count = s.divisor_override != 0 ? s.divisor_override : s.count_include_pad ? wy.full * wx.full : inside;
      store<V>(out + oy * s.out_row + ox * V, sum / splat<V>(static_cast<float>(count)));
    }
  }
}

template <int V>
PoolKernels make_pool(Isa isa) {
  return {isa, V, pool_run<V>};
}

}  // namespace
}  // namespace fastcnn
