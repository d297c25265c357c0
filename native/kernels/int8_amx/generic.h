// Included once per ISA, after the tile registers (kernels/amx/tiles.h).
#pragma once

#include "kernels/amx/byte_tiles_generic.h"
#include "kernels/int8/generic.h"
#include "kernels/int8_amx/int8_amx.h"

namespace fastcnn {
namespace {

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

template <int N>
void int8_amx_panel(const Int8AmxShape& s, const Int8AmxArgs& a) {
  byte_tile_panel<N>(s, a, [&](int64_t image, int y, int x, int pixels, const int32_t* sums) {
    Int8Out o = a.to;
    const ptrdiff_t out = image * s.out_image + y * s.out_row, res = image * s.res_image + y * s.res_row;
    if (o.out != nullptr) {
      o.out += out;
    } else {
      o.out_floats += out;
    }
    if (o.residual != nullptr) o.residual += res;
    if (o.residual_floats != nullptr) o.residual_floats += res;
    finish_pixels<N>(o, sums, x, pixels);
  });
}

void int8_amx_run(const Int8AmxShape& s, const Int8AmxArgs& a) {
  if (a.vectors > 1) {
    int8_amx_panel<2>(s, a);
  } else {
    int8_amx_panel<1>(s, a);
  }
}

}  // namespace
}  // namespace fastcnn
