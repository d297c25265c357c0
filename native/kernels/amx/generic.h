// Included once per ISA, after the tile registers (kernels/amx/tiles.h).
#pragma once

#include "base/simd.h"
#include "kernels/amx/amx.h"

namespace fastcnn {
namespace {

constexpr int kV = 16;
constexpr int kSumsRow = kAmxPanel * kV;

template <int P, int N>
[[gnu::always_inline]] inline void add_products() {
  tile_dots<0, 4, 6>();
  if constexpr (N > 1) tile_dots<1, 4, 7>();
  if constexpr (P > 1) tile_dots<2, 5, 6>();
  if constexpr (P > 1 && N > 1) tile_dots<3, 5, 7>();
}

template <int P>
[[gnu::always_inline]] inline void load_pixels(const Bf16* at, ptrdiff_t pixel) {
  const ptrdiff_t bytes = pixel * ptrdiff_t{sizeof(Bf16)};
  tile_load<4>(at, bytes);
  if constexpr (P > 1) tile_load<5>(at + 16 * pixel, bytes);
}

template <int N>
[[gnu::always_inline]] inline void load_weights(const Bf16* at) {
  tile_load<6>(at, 64);
  if constexpr (N > 1) tile_load<7>(at + kAmxTile, 64);
}

// 16 * P pixels by N blocks of outputs, to sums[pixel][kSumsRow].
template <int P, int N, int PARTS>
void amx_sums(const AmxShape& s, const Bf16* in, const Bf16* w, float* sums, Ahead ahead) {
  const ptrdiff_t pixel = s.pixel, part = s.part;
  constexpr ptrdiff_t size = N * kAmxTile;
  tile_zero<0>();
  if constexpr (N > 1) tile_zero<1>();
  if constexpr (P > 1) tile_zero<2>();
  if constexpr (P > 1 && N > 1) tile_zero<3>();
  for (int k = 0; k < s.steps; ++k, w += PARTS * size) {
    ahead.visit();
    const Bf16* x = in + s.step_offset[k];
    if constexpr (PARTS == 1) {
      load_weights<N>(w);
      load_pixels<P>(x, pixel);
    } else if constexpr (PARTS == 2) {
      load_pixels<P>(x, pixel);
      load_weights<N>(w + size);
      add_products<P, N>();
      load_weights<N>(w);
      load_pixels<P>(x + part, pixel);
      add_products<P, N>();
      load_pixels<P>(x, pixel);
    } else {
      load_pixels<P>(x, pixel);
      load_weights<N>(w + 2 * size);
      add_products<P, N>();
      load_weights<N>(w + size);
      load_pixels<P>(x + part, pixel);
      add_products<P, N>();
      load_pixels<P>(x, pixel);
      add_products<P, N>();
      load_weights<N>(w);
      load_pixels<P>(x + 2 * part, pixel);
      add_products<P, N>();
      load_pixels<P>(x + part, pixel);
      add_products<P, N>();
      load_pixels<P>(x, pixel);
    }
    add_products<P, N>();
  }
  constexpr ptrdiff_t bytes = kSumsRow * sizeof(float);
  tile_store<0>(sums, bytes);
  if constexpr (N > 1) tile_store<1>(sums + kV, bytes);
  if constexpr (P > 1) tile_store<2>(sums + 16 * kSumsRow, bytes);
  if constexpr (P > 1 && N > 1) tile_store<3>(sums + 16 * kSumsRow + kV, bytes);
}

struct Place {
  int x = 0, y = 0, image = 0;
};

// Bias, residual and activation of the sums of `pixels` pixels from `at` on, and to the map; moves `at`.
template <int N>
void finish(const AmxShape& s, const AmxArgs& a, const float* sums, int pixels, int block, Place& at) {
  Vec<kV> bias[N];
  for (int j = 0; j < N; ++j) bias[j] = a.bias != nullptr ? load<kV>(a.bias + (block + j) * kV) : Vec<kV>{};
  const Vec<kV> lo = splat<kV>(s.act.lo), hi = splat<kV>(s.act.hi);
  while (pixels > 0) {
    const int row = s.row - at.x < pixels ? s.row - at.x : pixels;
    const int run = at.y >= a.rows ? 0 : s.out_w - at.x < row ? s.out_w - at.x : row;
    float* out = a.out + block * s.out_plane + at.image * s.out_image + at.y * s.out_row + at.x * s.out_pixel;
    const float* res = a.residual;
    if (res != nullptr) {
      res += block * s.res_plane + at.image * s.res_image + at.y * s.res_row + at.x * s.res_pixel;
    }
    for (int k = 0; k < run; ++k, out += s.out_pixel) {
#pragma GCC unroll 2
      for (int j = 0; j < N; ++j) {
        Vec<kV> v = load<kV>(sums + k * kSumsRow + j * kV) + bias[j];
        if (res != nullptr && !s.act_before_residual) v += load<kV>(res + k * s.res_pixel + j * s.res_plane);
        if (s.act.kind == Act::kClamp) {
          v = min_nan<kV>(hi, max_nan<kV>(lo, v));
        } else if (s.act.kind != Act::kNone) {
          alignas(64) float one[kV];
          store<kV>(one, v);
          activate_run<kV>(one, 1, s.act, s.act.slope != nullptr ? s.act.slope + (block + j) * kV : nullptr);
          v = load<kV>(one);
        }
        if (res != nullptr && s.act_before_residual) v += load<kV>(res + k * s.res_pixel + j * s.res_plane);
        store<kV>(out + j * s.out_plane, v);
      }
    }
    sums += row * kSumsRow;
    pixels -= row;
    at.x += row;
    if (at.x == s.row) {
      at.x = 0;
      if (++at.y == a.image_rows) at.y = 0, ++at.image;
    }
  }
}

template <int N, int PARTS>
void amx_panel(const AmxShape& s, const AmxArgs& a, const Bf16* w, Region next, int block) {
  alignas(64) float sums[kAmxPixels * kSumsRow];
  // To the last pixel that is in the map.
  const int pixels = ((a.images - 1) * a.image_rows + a.rows - 1) * s.row + s.out_w;
  const int visits = (pixels + kAmxPixels - 1) / kAmxPixels;
  const Bf16* in = a.in;
  Place at;
  for (int t = 0; t < visits; ++t, in += kAmxPixels * s.pixel) {
    const int left = pixels - t * kAmxPixels;
    const Ahead ahead = ahead_part(next, s.steps, t, visits);
    if (left > 16) {
      amx_sums<2, N, PARTS>(s, in, w, sums, ahead);
    } else {
      amx_sums<1, N, PARTS>(s, in, w, sums, ahead);
    }
    finish<N>(s, a, sums, left < kAmxPixels ? left : kAmxPixels, block, at);
  }
}

template <int PARTS>
void amx_panels(const AmxShape& s, const AmxArgs& a) {
  const Bf16* w = a.weights;
  for (int b = 0; b < a.blocks; b += kAmxPanel) {
    const bool whole = b + 1 < a.blocks;
    const ptrdiff_t size = static_cast<ptrdiff_t>(s.steps) * PARTS * (whole ? 2 : 1) * kAmxTile;
    const Region next = b + kAmxPanel < a.blocks ? Region{w + size, size * ptrdiff_t{sizeof(Bf16)}} : a.next;
    if (whole) {
      amx_panel<2, PARTS>(s, a, w, next, a.block0 + b);
    } else {
      amx_panel<1, PARTS>(s, a, w, next, a.block0 + b);
    }
    w += size;
  }
}

void amx_run(const AmxShape& s, const AmxArgs& a) {
  tiles_begin();
  if (s.parts == 1) amx_panels<1>(s, a);
  if (s.parts == 2) amx_panels<2>(s, a);
  if (s.parts == 3) amx_panels<3>(s, a);
  tiles_end();
}

void amx_peak(int64_t iterations) {
  alignas(64) static const float zeros[16 * 16] = {};
  tiles_begin();
  load_pixels<2>(reinterpret_cast<const Bf16*>(zeros), 0);
  load_weights<1>(reinterpret_cast<const Bf16*>(zeros));
  tile_load<7>(zeros, 64);
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (int64_t k = 0; k < iterations; ++k) add_products<2, 2>();
  tiles_end();
}

// The parts of 16 floats, `part` numbers from each to the next.
[[gnu::always_inline]] inline void round_block(Vec<kV> x, int parts, Bf16* to, ptrdiff_t part) {
  for (int i = 0;; ++i, to += part) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy(to, &rounded, sizeof rounded);
#else
    for (int l = 0; l < kV; ++l) to[l] = round_bf16(x[l]);
#endif
    if (i + 1 == parts) return;
    typedef uint16_t Half __attribute__((vector_size(kV * 2)));
    Half bits;
    std::memcpy(&bits, to, sizeof bits);
    const IVec<kV> upper = __builtin_convertvector(bits, IVec<kV>) << 16;
    const Vec<kV> rest = x - (Vec<kV>)upper;
    x = rest - rest == 0.0f ? rest : Vec<kV>{};  // what rounds to an infinity leaves nothing
  }
}

void amx_weights(const float* even, const float* odd, ptrdiff_t apart, int filters, int parts, Bf16* out,
                 ptrdiff_t part) {
  alignas(64) float two[2][kV] = {};
  for (int f = 0; f < filters; ++f) {
    two[0][f] = even[f * apart];
    if (odd != nullptr) two[1][f] = odd[f * apart];
  }
  alignas(64) Bf16 rounded[3][2][kV];
  for (int i = 0; i < 2; ++i) round_block(load<kV>(two[i]), parts, rounded[0][i], 2 * kV);
  typedef uint16_t Half __attribute__((vector_size(kV * 2)));
  for (int p = 0; p < parts; ++p, out += part) {
    Half x[2];
    std::memcpy(x, rounded[p], sizeof x);
    const IVec<kV> pairs = __builtin_convertvector(x[0], IVec<kV>) | __builtin_convertvector(x[1], IVec<kV>) << 16;
    std::memcpy(out, &pairs, sizeof pairs);
  }
}

void amx_round(const float* first, const float* second, ptrdiff_t in_pixel, int pixels, int parts, Bf16* out) {
  for (int i = 0; i < pixels; ++i, out += parts * kAmxChannels) {
    round_block(load<kV>(first + i * in_pixel), parts, out, kAmxChannels);
    round_block(second != nullptr ? load<kV>(second + i * in_pixel) : Vec<kV>{}, parts, out + kV, kAmxChannels);
  }
}

constexpr int kMostPlanes = 4;  // that are interleaved in registers

// Where the numbers of 16 pixels of so many channels are found in two registers of [channel][pixel].
typedef uint16_t Numbers __attribute__((vector_size(64)));
struct Places {
  Numbers from[kMostPlanes + 1][2];

  Places() {
    for (int channels = 1; channels <= kMostPlanes; ++channels) {
      for (int k = 0; k < 64; ++k) {
        from[channels][k / 32][k % 32] = static_cast<uint16_t>(k % channels * kV + k / channels % kV);
      }
    }
  }
};

// The next `count` <= 16 pixels of `channels` <= kMostPlanes planes.
[[gnu::always_inline]] inline void interleave_run(const float* in, ptrdiff_t plane_floats, int channels, int count,
                                                  int parts, Bf16* out, ptrdiff_t part, const Numbers (&from)[2]) {
  alignas(64) Bf16 rounded[3][kMostPlanes][kV];
  for (int c = 0; c < channels; ++c, in += plane_floats) {
    alignas(64) float whole[kV] = {};
    if (count < kV) std::memcpy(whole, in, sizeof(float) * static_cast<size_t>(count));
    round_block(load<kV>(count < kV ? whole : in), parts, rounded[0][c], kMostPlanes * kV);
  }
  for (int p = 0; p < parts; ++p, out += part) {
    Numbers x[2], mixed[2];
    std::memcpy(x, rounded[p], sizeof x);
    for (int k = 0; k < 2; ++k) mixed[k] = __builtin_shuffle(x[0], x[1], from[k]);
    std::memcpy(out, mixed, sizeof(Bf16) * static_cast<size_t>(count * channels));
  }
}

template <int C>
void interleave_planes(const float* in, ptrdiff_t plane_floats, int pixels, int parts, Bf16* out, ptrdiff_t part) {
  static const Places places;
  int i = 0;
  for (; i + kV <= pixels; i += kV, in += kV, out += kV * C) {
    interleave_run(in, plane_floats, C, kV, parts, out, part, places.from[C]);
  }
  if (i < pixels) interleave_run(in, plane_floats, C, pixels - i, parts, out, part, places.from[C]);
}

void amx_interleave(const float* in, ptrdiff_t plane_floats, int channels, int pixels, int parts, Bf16* out,
                    ptrdiff_t part) {
  if (channels == 1) return interleave_planes<1>(in, plane_floats, pixels, parts, out, part);
  if (channels == 2) return interleave_planes<2>(in, plane_floats, pixels, parts, out, part);
  if (channels == 3) return interleave_planes<3>(in, plane_floats, pixels, parts, out, part);
  if (channels == 4) return interleave_planes<4>(in, plane_floats, pixels, parts, out, part);
  for (int c = 0; c < channels; ++c, in += plane_floats, ++out) {
    for (int i = 0; i < pixels; i += kV) {
      Bf16 rounded[3 * kV];
      const int count = pixels - i < kV ? pixels - i : kV;
      alignas(64) float whole[kV] = {};
      if (count < kV) std::memcpy(whole, in + i, sizeof(float) * static_cast<size_t>(count));
      round_block(load<kV>(count < kV ? whole : in + i), parts, rounded, kV);
      for (int p = 0; p < parts; ++p) {
        Bf16* const to = out + p * part + static_cast<ptrdiff_t>(i) * channels;
        for (int k = 0; k < count; ++k) to[k * channels] = rounded[p * kV + k];
      }
    }
  }
}

}  // namespace
}  // namespace fastcnn
