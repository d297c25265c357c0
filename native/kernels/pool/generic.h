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

// Whether any number of many vectors is none.
template <int V>
class Unordered {
 public:
  [[gnu::always_inline]] void add(Vec<V> a, Vec<V> b) {
#if defined(__AVX512F__)
    if constexpr (V == 16) {
      found_ |= _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q);
      return;
    }
#endif
    mask_ |= (a != a) | (b != b);
  }
  [[gnu::always_inline]] bool any() const {
#if defined(__AVX512F__)
    if constexpr (V == 16) return found_ != 0;
#endif
#if defined(__AVX2__)
    if constexpr (V == 8) return _mm256_movemask_ps((__m256)mask_) != 0;
#endif
    bool found = false;
    for (int i = 0; i < V; ++i) found |= mask_[i] != 0;
    return found;
  }

 private:
  unsigned found_ = 0;
  IVec<V> mask_ = {};
};

// The largest of K x K neighbours, all inside the map; false if one of them is no number.
template <int V, int K>
[[gnu::always_inline]] inline bool largest_of(const float* in, ptrdiff_t row, Vec<V>& best) {
  Vec<V> x[K * K];
#pragma GCC unroll 9
  for (int i = 0; i < K * K; ++i) x[i] = load<V>(in + i / K * row + i % K * V);
  Unordered<V> unordered;
#pragma GCC unroll 9
  for (int i = 0; i + 1 < K * K; i += 2) unordered.add(x[i], x[i + 1]);
  if constexpr (K * K % 2 == 1) unordered.add(x[K * K - 1], x[K * K - 1]);
  best = x[0];
#pragma GCC unroll 9
  for (int i = 1; i < K * K; ++i) best = max_nan<V>(best, x[i]);
  return !unordered.any();
}

template <int V>
void pool_run(const PoolShape& s, const float* in, float* out, int row0, int row1) {
  for (int oy = row0; oy < row1; ++oy) {
    const Window wy = window(s, oy, s.h, s.out_h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top, s.pad_bottom);
    for (int ox = 0; ox < s.out_w; ++ox) {
      const Window wx = window(s, ox, s.w, s.out_w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left, s.pad_right);
      if (s.kind == PoolKind::kMax) {
        Vec<V> best;
        const float* const first = in + wy.begin * s.in_row + static_cast<ptrdiff_t>(wx.begin) * V;
        const int rows = wy.end - wy.begin, columns = wx.end - wx.begin;
        const bool dense = wy.step == 1 && wx.step == 1 && rows == columns;
        if (dense && ((rows == 3 && largest_of<V, 3>(first, s.in_row, best)) ||
                      (rows == 2 && largest_of<V, 2>(first, s.in_row, best)))) {
          store<V>(out + oy * s.out_row + ox * V, best);
          continue;
        }
        best = splat<V>(-__builtin_inff());
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
