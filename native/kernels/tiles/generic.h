// The product of all forms: per frequency, tiles by output channels over input channels. Included once per ISA.
#pragma once

#include "base/simd.h"
#include "kernels/tiles/tiles.h"
#include "kernels/unpack/unpack.h"

namespace fastcnn {
namespace {

// Adds V rows of weights times V channels of P tiles to sums of P tiles by NV vectors of output channels; weight(i) is
// vector i of the rows. Two pointers and constant displacements only: as many fused multiply-adds as the registers
// allow and the loads that feed them. All 16 rows in one go would be more code than CPUs keep decoded, and addresses
// far from their pointer (127 floats with AVX-512) take three bytes more each.
template <int V, int P, int NV, class Weight>
[[gnu::always_inline]] inline void add_rows(const float* v, Weight weight, Vec<V> (&acc)[P][NV]) {
  constexpr int kRows = V < 8 ? V : 8;
  static_assert(V % kRows == 0);
  const float* middle = v + P / 2 * V;
  asm("" : "+r"(middle));  // or the compiler goes back to v and its far addresses
#pragma GCC unroll 1
  for (int first = 0; first < V; first += kRows, middle += kRows) {
#pragma GCC unroll 16
    for (int l = 0; l < kRows; ++l) {
      Vec<V> w[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) w[j] = weight((first + l) * NV + j);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) {
        const Vec<V> x = splat<V>(middle[(i - P / 2) * V + l]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += x * w[j];
      }
    }
  }
}

// P tiles of a group of TILE times a panel.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void product_tile(const float* v, const TileProduct& p, float* m, Ahead ahead) {
  const float* u = p.u;
  Vec<V> acc[P][NV] = {};
  for (int cb = 0; cb < p.blocks; ++cb) {
    ahead.visit();
    add_rows<V, P, NV>(v, [&](int i) __attribute__((always_inline)) { return load<V>(u + i * V); }, acc);
    v += TILE * V;
    u += V * NV * V;
  }
  if (p.add) {
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] += load<V>(m + (i * NV + j) * V);
  }
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) store<V>(m + (i * NV + j) * V, acc[i][j]);
}

// Likewise of codes, which are widened in registers: the sums of one row of scales are scaled once.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void product_codes(const float* v, const TileProduct& p, float* m, Ahead ahead) {
  constexpr int kBlocks = kScaleRows / V;
  const int16_t* q = p.codes;
  const float* scales = p.scales;
  for (int first = 0; first < p.blocks; first += kBlocks, scales += NV * V) {
    const int last = first + kBlocks < p.blocks ? first + kBlocks : p.blocks;
    Vec<V> acc[P][NV] = {};
    for (int cb = first; cb < last; ++cb) {
      ahead.visit();
      add_rows<V, P, NV>(v, [&](int i) __attribute__((always_inline)) { return load_i16<V>(q + i * V); }, acc);
      v += TILE * V;
      q += V * NV * V;
    }
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        float* const to = m + (i * NV + j) * V;
        const Vec<V> sum = acc[i][j] * load<V>(scales + j * V);
        store<V>(to, first > 0 || p.add ? sum + load<V>(to) : sum);
      }
  }
}

// A group of `count` tiles, found among P, P - 1, ... 1.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void product_group(const float* v, const TileProduct& p, float* m, int count,
                                                 Ahead ahead) {
  if constexpr (P > 0) {
    if (count != P) {
      product_group<V, TILE, P - 1, NV>(v, p, m, count, ahead);
    } else if (p.codes != nullptr) {
      product_codes<V, TILE, P, NV>(v, p, m, ahead);
    } else {
      product_tile<V, TILE, P, NV>(v, p, m, ahead);
    }
  }
}

template <int V, int TILE, int NV>
void product_panel(const TileProduct& p) {
  const float* v = p.v;
  float* m = p.m;
  const int groups = (p.tiles + p.group - 1) / p.group;
  for (int g = 0, left = p.tiles; g < groups; ++g, left -= p.group) {
    const int count = left < p.group ? left : p.group;
    product_group<V, TILE, TILE, NV>(v, p, m, count, ahead_part(p.next, p.blocks, g, groups));
    v += p.group_stride;
    m += p.group * NV * V;
  }
}

template <int V, int TILE>
void product(const TileProduct& p) {
  if (p.width == 2) {
    product_panel<V, TILE, 2>(p);
  } else {
    product_panel<V, TILE, 1>(p);
  }
}

template <int V>
void multiply(const float* u, float* v, size_t floats) {
  for (size_t i = 0; i < floats; i += V) store<V>(v + i, load<V>(v + i) * load<V>(u + i));
}

// Channels l ... l + P of a block by NV vectors of filters, over all tiles.
template <int V, int TILE, int P, int NV>
[[gnu::always_inline]] inline void outer_tile(const TileOuter& o, const float* x, const float* g, float* out) {
  Vec<V> acc[P][NV];
  const ptrdiff_t row = static_cast<ptrdiff_t>(o.g_blocks) * V;
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) acc[i][j] = load<V>(out + i * row + j * V);
  for (int left = o.tiles; left > 0; left -= o.group, x += o.x_group, g += o.g_group) {
    const int count = left < o.group ? left : o.group;
    for (int k = 0; k < count; ++k) {
      Vec<V> w[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) w[j] = load<V>(g + (j * TILE + k) * V);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) {
        const Vec<V> s = splat<V>(x[k * V + i]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] += s * w[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) store<V>(out + i * row + j * V, acc[i][j]);
}

template <int V, int TILE>
void outer(const TileOuter& o) {
  constexpr int P = V / 2;
  for (int cb = 0; cb < o.x_blocks; ++cb) {
    for (int fb = 0; fb < o.g_blocks; fb += 2) {
      for (int l = 0; l < V; l += P) {
        const float *x = o.x + cb * TILE * V + l, *g = o.g + fb * TILE * V;
        float* out = o.out + (static_cast<ptrdiff_t>(cb * V + l) * o.g_blocks + fb) * V;
        if (fb + 1 < o.g_blocks) {
          outer_tile<V, TILE, P, 2>(o, x, g, out);
        } else {
          outer_tile<V, TILE, P, 1>(o, x, g, out);
        }
      }
    }
  }
}

template <int V, int TILE>
TileKernels make_tiles(Isa isa) {
  return {isa, V, TILE, 2, product<V, TILE>, multiply<V>, outer<V, TILE>};
}

}  // namespace
}  // namespace fastcnn
