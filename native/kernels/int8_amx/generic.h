// Included once per ISA, after the tile registers (kernels/amx/tiles.h).
#pragma once

#include "kernels/int8/generic.h"
#include "kernels/int8_amx/int8_amx.h"

namespace fastcnn {
namespace {

constexpr int kLanes = 16;
constexpr int kSums = kInt8Panel * kLanes;  // of a pixel

// Sums of P tiles of pixels and N channel vectors, to sums[P * pixels of a tile][kSums].
template <int P, int N>
[[gnu::always_inline]] inline void tile_sums(const Int8AmxShape& s, const uint8_t* const (&in)[2], const int8_t* w,
                                             const int32_t* start, int32_t* sums) {
  tile_load<0>(start, 0);  // all rows are the same
  if constexpr (N > 1) tile_load<1>(start + kLanes, 0);
  if constexpr (P > 1) tile_load<2>(start, 0);
  if constexpr (P > 1 && N > 1) tile_load<3>(start + kLanes, 0);
  for (int k = 0; k < s.steps; ++k, w += N * kInt8Tile) {
    tile_load<6>(w, 64);
    if constexpr (N > 1) tile_load<7>(w + kInt8Tile, 64);
    tile_load<4>(in[0] + s.step_offset[k], s.in_pixel);
    if constexpr (P > 1) tile_load<5>(in[1] + s.step_offset[k], s.in_pixel);
    tile_byte_dots<0, 4, 6>();
    if constexpr (N > 1) tile_byte_dots<1, 4, 7>();
    if constexpr (P > 1) tile_byte_dots<2, 5, 6>();
    if constexpr (P > 1 && N > 1) tile_byte_dots<3, 5, 7>();
  }
  constexpr ptrdiff_t bytes = kSums * sizeof(int32_t);
  tile_store<0>(sums, bytes);
  if constexpr (N > 1) tile_store<1>(sums + kLanes, bytes);
  if constexpr (P > 1) tile_store<2>(sums + s.pixels * kSums, bytes);
  if constexpr (P > 1 && N > 1) tile_store<3>(sums + s.pixels * kSums + kLanes, bytes);
}

#if defined(__AVX512BW__)
template <Added kAdded, int N>
[[gnu::always_inline]] inline void finish_pixels_direct(const Int8Out& o, const int32_t* sums, int first, int pixels) {
  constexpr int kTogether = 4 / N;  // pixels
  const Clip clip(o);
  Vec<kLanes> scale[N], bias[N];
#pragma GCC unroll 2
  for (int j = 0; j < N; ++j)
    scale[j] = load<kLanes>(o.scale + j * kLanes), bias[j] = load<kLanes>(o.bias + j * kLanes);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  uint8_t* out = o.out + first * o.out_pixel;
  int p = 0;
  for (; p + kTogether <= pixels; p += kTogether, sums += kTogether * kSums, out += kTogether * o.out_pixel) {
    __m512i q[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const IVec<kLanes> sum = load_ints<kLanes>(sums + k / N * kSums + k % N * kLanes);
      q[k] = direct_levels<kAdded>(o, sum, k % N, first + p + k / N, scale[k % N], bias[k % N]);
    }
    const __m512i all = _mm512_permutexvar_epi32(order, clip(q[0], q[1], q[2], q[3]));
    if constexpr (N == 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(all));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + o.out_pixel), _mm512_extracti64x4_epi64(all, 1));
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(all));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + o.out_pixel), _mm512_extracti32x4_epi32(all, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * o.out_pixel), _mm512_extracti32x4_epi32(all, 2));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * o.out_pixel), _mm512_extracti32x4_epi32(all, 3));
    }
  }
  for (; p < pixels; ++p, sums += kSums) {
    __m512i q[N];
#pragma GCC unroll 2
    for (int j = 0; j < N; ++j) {
      const IVec<kLanes> sum = load_ints<kLanes>(sums + j * kLanes);
      q[j] = direct_levels<kAdded>(o, sum, j, first + p, scale[j], bias[j]);
    }
    finish_direct<N>(o, q, 0, first + p, clip);
  }
}
#endif

// Pixels first ... first + pixels - 1 of a row.
template <int N>
[[gnu::always_inline]] inline void finish_pixels(const Int8Out& o, const int32_t* sums, int first, int pixels) {
#if defined(__AVX512BW__)
  if (o.direct) {
    if (o.residual != nullptr) {
      finish_pixels_direct<Added::kBytes, N>(o, sums, first, pixels);
    } else if (o.residual_floats != nullptr) {
      finish_pixels_direct<Added::kFloats, N>(o, sums, first, pixels);
    } else {
      finish_pixels_direct<Added::kNothing, N>(o, sums, first, pixels);
    }
    return;
  }
#endif
  for (int j = 0; j < N; ++j) {
    const Vec<kLanes> scale = load<kLanes>(o.scale + j * kLanes), bias = load<kLanes>(o.bias + j * kLanes);
    for (int p = 0; p < pixels; ++p) {
      finish<kLanes>(o, load_ints<kLanes>(sums + p * kSums + j * kLanes), j, first + p, scale, bias);
    }
  }
}

// Where a tile of pixels begins.
struct TileAt {
  int64_t image;
  int y, x;

  TileAt(const Int8AmxShape& s, int64_t tile) : image(tile / s.image_tiles) {
    const int of_image = static_cast<int>(tile % s.image_tiles);
    y = s.row_pixels != 0 ? of_image * s.pixels / s.row_pixels : of_image / s.row_tiles;
    x = s.row_pixels != 0 ? of_image * s.pixels % s.row_pixels : of_image % s.row_tiles * s.pixels;
  }
  const uint8_t* in(const Int8AmxShape& s, const uint8_t* in) const {
    return in + image * s.in_image + y * s.in_row + x * s.in_pixel;
  }
};

template <int N>
void finish_sums(const Int8AmxShape& s, const Int8Out& to, const int32_t* sums, TileAt at) {
  int left = s.pixels;
  while (left > 0 && at.y < s.out_h) {
    const int run = s.row_pixels != 0 && s.row_pixels - at.x < left ? s.row_pixels - at.x : left;
    const int kept = s.out_w - at.x < run ? s.out_w - at.x : run;
    if (kept > 0) {
      Int8Out o = to;
      const ptrdiff_t out = at.image * s.out_image + at.y * s.out_row, res = at.image * s.res_image + at.y * s.res_row;
      if (o.out != nullptr) {
        o.out += out;
      } else {
        o.out_floats += out;
      }
      if (o.residual != nullptr) o.residual += res;
      if (o.residual_floats != nullptr) o.residual_floats += res;
      finish_pixels<N>(o, sums, at.x, kept);
    }
    sums += run * kSums;
    left -= run;
    at.x = 0;
    ++at.y;
  }
}

template <int N>
void int8_amx_panel(const Int8AmxShape& s, const Int8AmxArgs& a) {
  alignas(64) int32_t sums[2 * kInt8TilePixels * kSums];
  for (int64_t tile = a.tile0; tile < a.tile1; tile += 2) {
    const TileAt first(s, tile);
    const uint8_t* in[2] = {first.in(s, a.in), nullptr};
    if (tile + 1 == a.tile1) {
      tile_sums<1, N>(s, in, a.weights, a.to.start, sums);
      finish_sums<N>(s, a.to, sums, first);
      return;
    }
    const TileAt second(s, tile + 1);
    in[1] = second.in(s, a.in);
    tile_sums<2, N>(s, in, a.weights, a.to.start, sums);
    finish_sums<N>(s, a.to, sums, first);
    finish_sums<N>(s, a.to, sums + s.pixels * kSums, second);
  }
}

void int8_amx_run(const Int8AmxShape& s, const Int8AmxArgs& a) {
  tiles_begin(s.pixels);
  if (a.vectors > 1) {
    int8_amx_panel<2>(s, a);
  } else {
    int8_amx_panel<1>(s, a);
  }
  tiles_end();
}

}  // namespace
}  // namespace fastcnn
