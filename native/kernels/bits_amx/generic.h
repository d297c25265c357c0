// Included once per ISA, after the tile registers (kernels/amx/tiles.h).
#pragma once

#include "kernels/amx/byte_tiles_generic.h"
#include "kernels/bits/generic.h"
#include "kernels/bits_amx/bits_amx.h"

namespace fastcnn {
namespace {

static_assert(kByteTilePanel == kBitsAmxVectors, "a panel is a word of bits");

void expand(const uint32_t* words, int64_t count, uint8_t* out) {
  int64_t i = 0;
#if defined(__AVX512BW__)
  const __m512i one = _mm512_set1_epi8(1);
  for (; i + 2 <= count; i += 2, out += 64) {
    uint64_t bits;
    std::memcpy(&bits, words + i, sizeof bits);
    _mm512_storeu_si512(out, _mm512_maskz_mov_epi8(bits, one));
  }
#endif
  for (; i < count; ++i) {
    for (int b = 0; b < 32; ++b) *out++ = static_cast<uint8_t>(words[i] >> b & 1);
  }
}

// Pixels first ... first + pixels - 1 of a row.
[[gnu::always_inline]] inline void finish_row(const BitsConvShape& s, const BitsConvArgs& a, const int32_t* sums,
                                              int first, int pixels) {
  constexpr int N = kBitsAmxVectors;
  const bool corrected = a.cases != nullptr;
  if (a.out_bits != nullptr && !corrected) {
    IVec<kLanes> limits[N];
    // Twice a number is above a limit where the number is above its half, rounded down.
    for (int j = 0; j < N; ++j) limits[j] = load_ints<kLanes>(a.limits + j * kLanes) >> 1;
    char* out = static_cast<char*>(a.out_bits) + first * s.out_pixel * 4;
    for (int p = 0; p < pixels; ++p, sums += kSums, out += s.out_pixel * 4) {
      const uint32_t bits = greater<kLanes>(load_ints<kLanes>(sums), limits[0]) |
                            greater<kLanes>(load_ints<kLanes>(sums + kLanes), limits[1]) << kLanes;
      std::memcpy(out, &bits, sizeof bits);
    }
    return;
  }
  for (int p = 0; p < pixels; ++p, sums += kSums) {
    uint32_t bits = 0;
    for (int j = 0; j < N; ++j) {
      IVec<kLanes> twice = load_ints<kLanes>(sums + j * kLanes) * 2;
      if (corrected) {
        twice += load_ints<kLanes>(a.corrections + a.cases[first + p] * a.corrections_case + j * kLanes);
      }
      if (a.out_bits != nullptr) {
        bits |= greater<kLanes>(twice, load_ints<kLanes>(a.limits + j * kLanes)) << (j * kLanes);
      } else if (j < a.vectors) {
        finish_floats<kLanes>(s, a, twice, j, first + p);
      }
    }
    if (a.out_bits != nullptr) {
      std::memcpy(static_cast<char*>(a.out_bits) + (first + p) * s.out_pixel * 4, &bits, sizeof bits);
    }
  }
}

void bits_amx_run(const BitsAmxShape& s, const BitsAmxArgs& a) {
  byte_tile_panel<kBitsAmxVectors>(s, a, [&](int64_t, int y, int x, int pixels, const int32_t* sums) {
    BitsConvArgs row = a.to;
    if (row.out_bits != nullptr) {
      row.out_bits = static_cast<char*>(row.out_bits) + y * s.to_row * 4;
    } else {
      row.out += y * s.to_row;
    }
    if (row.residual != nullptr) row.residual += y * s.res_row;
    if (a.row_cases != nullptr) {
      const int64_t rows = a.row_cases[y];  // of this case
      row.cases = a.corrected[rows] != 0 ? a.to.cases + rows * s.out_w : nullptr;
    }
    finish_row(s.to, row, sums, x, pixels);
  });
}

}  // namespace
}  // namespace fastcnn
