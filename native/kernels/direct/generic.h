// The register-blocked micro-kernel and its loops. Included once per ISA, inside the anonymous namespace of that file.
//
// Registers for P pixels x NV vectors: P*NV accumulators, NV weights, one broadcast. AVX2 (16): 6x2, 4x3.
// AVX-512 (32): 7x4, 12x2. P*NV should be at least (FMA latency x FMAs per cycle) = 8.
#pragma once

#include <type_traits>

#include "base/simd.h"
#include "kernels/direct/direct.h"

namespace fastcnn {
namespace {

template <int V, int P, int NV, int LANES>
[[gnu::always_inline]] inline void accumulate(Vec<V> (&acc)[P][NV], const float* const (&in)[P], const int32_t* offset,
                                              int steps, const float* __restrict w, Ahead ahead) {
  for (int s = 0; s < steps; ++s) {
    ahead.visit();
    const ptrdiff_t off = offset[s];
#pragma GCC unroll 16
    for (int l = 0; l < LANES; ++l) {
      Vec<V> wv[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        // A single pixel waits for its weights: they are fetched half a page ahead.
        if (P == 1 && j * V % 16 == 0) __builtin_prefetch(w + j * V + 512);
        wv[j] = load<V>(w + j * V);
      }
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) {
        const Vec<V> x = splat<V>(in[i][off + l]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += x * wv[j];
      }
      w += NV * V;
    }
  }
}

// Pairs of bf16 in the lanes of a vector of floats.
template <int V>
[[gnu::always_inline]] inline Vec<V> load_pairs(const Bf16* p) {
  return load<V>(reinterpret_cast<const float*>(p));  // aligned as floats are: may_alias, and only moved
}
template <int V>
[[gnu::always_inline]] inline Vec<V> splat_pair(const Bf16* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  const IVec<V> all = pair - IVec<V>{};
  return (Vec<V>)all;
}
template <int V, int P, int NV, int LANES>
[[gnu::always_inline]] inline void accumulate(Vec<V> (&acc)[P][NV], const Bf16* const (&in)[P], const int32_t* offset,
                                              int steps, const Bf16* __restrict w, Ahead ahead) {
  for (int s = 0; s < steps; ++s) {
    ahead.visit();
    const ptrdiff_t off = offset[s];
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l += 2) {
      Vec<V> wv[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) wv[j] = load_pairs<V>(w + j * 2 * V);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) {
        const Vec<V> x = splat_pair<V>(in[i] + off + l);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] = add_dots<V>(acc[i][j], x, wv[j]);
      }
      w += NV * 2 * V;
    }
  }
}

// The same in short runs of `run` steps whose sums join the total by Knuth's two-sum: what the additions round off is
// kept and added at the end, so that only the products of one run round into each other. Out of line and through
// memory: the fast path's accumulators must never have an address.
template <int V, int P, int NV, int LANES>
[[gnu::noinline]] void accumulate_compensated(Vec<V> (&total)[P][NV], const float* const (&in)[P],
                                              const int32_t* offset, int steps, const float* __restrict w, int run) {
  Vec<V> lost[P][NV] = {};
  for (int s = 0; s < steps; s += run) {
    const int count = run < steps - s ? run : steps - s;
    Vec<V> acc[P][NV] = {};
    accumulate<V, P, NV, LANES>(acc, in, offset + s, count, w, {});
    w += static_cast<ptrdiff_t>(count) * LANES * NV * V;
    for (int i = 0; i < P; ++i) {
      for (int j = 0; j < NV; ++j) {
        const Vec<V> a = total[i][j], b = acc[i][j], sum = a + b, part = sum - a;
        lost[i][j] += (a - (sum - part)) + (b - part);
        total[i][j] = sum;
      }
    }
  }
  for (int i = 0; i < P; ++i) {
    for (int j = 0; j < NV; ++j) {
      const Vec<V> l = lost[i][j];
      total[i][j] += l == l ? l : Vec<V>{};  // an infinite sum has lost nothing
    }
  }
}

template <int V, int P, int NV, int LANES, class T>
void direct_tile(const DirectShape& s, const DirectArgsOf<T>& a, const T* const (&in)[P], float* const (&out)[P],
                 const float* const (&res)[P], const T* w, int block, int step0, int step1, Ahead ahead) {
  Vec<V> acc[P][NV];
  // Every cache block of steps is summed from zero and then added to what is there: a sum of sums, whose rounding error
  // grows with the length of a block and the number of blocks, not with their product.
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) {
    const Vec<V> b = step0 == 0 && a.bias != nullptr ? load<V>(a.bias + (block + j) * V) : Vec<V>{};
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i) acc[i][j] = b;
  }
  if (!std::is_same_v<T, float> || s.compensated_run == 0) {
    accumulate<V, P, NV, LANES>(acc, in, s.step_offset + step0, step1 - step0, w, ahead);
  } else if constexpr (std::is_same_v<T, float>) {
    Vec<V> total[P][NV];
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) total[i][j] = acc[i][j];
    accumulate_compensated<V, P, NV, LANES>(total, in, s.step_offset + step0, step1 - step0, w, s.compensated_run);
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = total[i][j];
  }
  if (step0 != 0) {
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] += load<V>(out[i] + j * s.out_plane);
  }
  if (step1 == s.steps) {
    if (a.residual != nullptr && !s.act_before_residual) {
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += load<V>(res[i] + j * s.res_plane);
    }
    if (s.act.kind == Act::kClamp) {
      const Vec<V> lo = splat<V>(s.act.lo), hi = splat<V>(s.act.hi);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] = min_nan<V>(hi, max_nan<V>(lo, acc[i][j]));
    } else if (s.act.kind != Act::kNone) {
      // Through memory: the functions are long, and one copy of them is enough.
      alignas(64) float tmp[NV * P * V];
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) store<V>(tmp + (j * P + i) * V, acc[i][j]);
      for (int j = 0; j < NV; ++j) {
        const float* slope = s.act.slope != nullptr ? s.act.slope + (block + j) * V : nullptr;
        activate_run<V>(tmp + j * P * V, P, s.act, slope);
      }
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] = load<V>(tmp + (j * P + i) * V);
    }
    if (a.residual != nullptr && s.act_before_residual) {
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += load<V>(res[i] + j * s.res_plane);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) store<V>(out[i] + j * s.out_plane, acc[i][j]);
}

// Walks pixels in row-major order and hands out addresses.
template <class T>
struct PixelCursor {
  const DirectShape& s;
  const T* in;
  float* out;
  const float* res;
  int x;
  PixelCursor(const DirectShape& shape, const DirectArgsOf<T>& a, int block) : s(shape), x(a.pixel0 % shape.out_w) {
    const int y = a.pixel0 / shape.out_w;
    in = a.in + y * s.in_row + x * s.in_pixel;
    out = a.out + block * s.out_plane + y * s.out_row + x * s.out_pixel;
    // Without a residual the address is walked but never read: any valid pointer will do.
    res = a.residual == nullptr ? out : a.residual + block * s.res_plane + y * s.res_row + x * s.res_pixel;
  }
  [[gnu::always_inline]] void next() {
    in += s.in_pixel;
    out += s.out_pixel;
    res += s.res_pixel;
    if (++x == s.out_w) {
      x = 0;
      in += s.in_row - s.out_w * s.in_pixel;
      out += s.out_row - s.out_w * s.out_pixel;
      res += s.res_row - s.out_w * s.res_pixel;
    }
  }
};

template <int V, int P, int NV, int LANES, class T>
[[gnu::always_inline]] inline void tile_at(const DirectShape& s, const DirectArgsOf<T>& a, PixelCursor<T>& cursor,
                                           const T* w, int block, int step0, int step1, Ahead ahead) {
  const T* in[P];
  float* out[P];
  const float* res[P];
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) {
    in[i] = cursor.in;
    out[i] = cursor.out;
    res[i] = cursor.res;
    cursor.next();
  }
  direct_tile<V, P, NV, LANES>(s, a, in, out, res, w, block, step0, step1, ahead);
}

// `next`: what is read after the panel.
template <int V, int P, int NV, int LANES, class T>
void direct_panel(const DirectShape& s, const DirectArgsOf<T>& a, const T* w, Region next, int block, int step0,
                  int step1) {
  PixelCursor<T> cursor(s, a, block);
  int left = a.pixel1 - a.pixel0;
  const int steps = step1 - step0, tiles = left / P;
  for (int tile = 0; tile < tiles; ++tile, left -= P) {
    tile_at<V, P, NV, LANES>(s, a, cursor, w, block, step0, step1, ahead_part(next, steps, tile, tiles));
  }
  if constexpr (P > 7) {
    if (left >= 7) {
      tile_at<V, 7, NV, LANES>(s, a, cursor, w, block, step0, step1, {});
      left -= 7;
    }
  }
  if constexpr (P > 4) {
    if (left >= 4) {
      tile_at<V, 4, NV, LANES>(s, a, cursor, w, block, step0, step1, {});
      left -= 4;
    }
  }
  if constexpr (P > 2) {
    if (left >= 2) {
      tile_at<V, 2, NV, LANES>(s, a, cursor, w, block, step0, step1, {});
      left -= 2;
    }
  }
  if constexpr (P > 1) {
    for (; left > 0; --left) tile_at<V, 1, NV, LANES>(s, a, cursor, w, block, step0, step1, {});
  }
}

template <int V, int P, int LANES, int MAXNV, class T>
void panels(const DirectShape& s, const DirectArgsOf<T>& a, int panel, int step0, int step1) {
  const T* w = a.weights;
  for (int b = 0; b < a.blocks;) {
    const int width = panel_width(panel, a.blocks - b);
    const T* wp = w + static_cast<ptrdiff_t>(step0 - a.step0) * LANES * width * V;
    Region next = step1 == (a.step1 != 0 ? a.step1 : s.steps) ? a.next : Region{};
    if (b + width < a.blocks) {
      const ptrdiff_t panel_size = static_cast<ptrdiff_t>(LANES) * width * V;
      next = {wp + s.steps * panel_size, (step1 - step0) * panel_size * ptrdiff_t{sizeof(T)}};
    }
    const int block = a.block0 + b;
    if constexpr (MAXNV >= 8) {
      if (width == 8) direct_panel<V, P, 8, LANES>(s, a, wp, next, block, step0, step1);
    }
    if constexpr (MAXNV >= 4) {
      if (width == 4) direct_panel<V, P, 4, LANES>(s, a, wp, next, block, step0, step1);
    }
    if constexpr (MAXNV >= 3) {
      if (width == 3) direct_panel<V, P, 3, LANES>(s, a, wp, next, block, step0, step1);
    }
    if (width == 2) direct_panel<V, P, 2, LANES>(s, a, wp, next, block, step0, step1);
    if (width == 1) direct_panel<V, P, 1, LANES>(s, a, wp, next, block, step0, step1);
    w += static_cast<ptrdiff_t>(s.steps) * LANES * width * V;
    b += width;
  }
}

template <int V>
void to_bf16(const float* in, ptrdiff_t in_step, int vectors, Bf16* out, ptrdiff_t out_step) {
  for (int i = 0; i < vectors; ++i, in += in_step, out += out_step) {
    const Vec<V> x = load<V>(in);
#if defined(__AVX512BF16__)
    if constexpr (V == 16) {
      const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
      std::memcpy(out, &rounded, sizeof rounded);
      continue;
    }
#endif
    const IVec<V> u = (IVec<V>)x;
    const IVec<V> rounded = ((u + 0x7fff + ((u >> 16) & 1)) >> 16), nan = (u >> 16) | 0x40;
    typedef int16_t Short __attribute__((vector_size(V * 2), aligned(2), may_alias));
    *reinterpret_cast<Short*>(out) = __builtin_convertvector(x == x ? rounded : nan, Short);
  }
}

}  // namespace
}  // namespace fastcnn
