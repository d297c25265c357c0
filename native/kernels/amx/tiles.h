// The tile registers of AMX: tiles T = 0 ... 7 of 16 rows of 64 bytes, those of pixels maybe of fewer rows.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace fastcnn {
namespace {

// The intrinsics take literal tile numbers only.
#define FASTCNN_FOR_TILE(T, CALL) \
  if constexpr (T == 0) CALL(0);  \
  if constexpr (T == 1) CALL(1);  \
  if constexpr (T == 2) CALL(2);  \
  if constexpr (T == 3) CALL(3);  \
  if constexpr (T == 4) CALL(4);  \
  if constexpr (T == 5) CALL(5);  \
  if constexpr (T == 6) CALL(6);  \
  if constexpr (T == 7) CALL(7)

template <int T>
[[gnu::always_inline]] inline void tile_zero() {
#define FASTCNN_CALL(t) _tile_zero(t)
  FASTCNN_FOR_TILE(T, FASTCNN_CALL);
#undef FASTCNN_CALL
}
template <int T>
[[gnu::always_inline]] inline void tile_load(const void* data, ptrdiff_t bytes) {
#define FASTCNN_CALL(t) _tile_loadd(t, data, bytes)
  FASTCNN_FOR_TILE(T, FASTCNN_CALL);
#undef FASTCNN_CALL
}
template <int T>
[[gnu::always_inline]] inline void tile_store(void* data, ptrdiff_t bytes) {
#define FASTCNN_CALL(t) _tile_stored(t, data, bytes)
  FASTCNN_FOR_TILE(T, FASTCNN_CALL);
#undef FASTCNN_CALL
}
// Sums of 2 x 2 tiles: tile 2 * i + j holds pixels 16 * i ... and output block j. Tiles 4, 5: pixels. 6, 7: weights.
template <int SUMS, int X, int W>
[[gnu::always_inline]] inline void tile_dots() {
  if constexpr (SUMS == 0 && X == 4 && W == 6) _tile_dpbf16ps(0, 4, 6);
  if constexpr (SUMS == 1 && X == 4 && W == 7) _tile_dpbf16ps(1, 4, 7);
  if constexpr (SUMS == 2 && X == 5 && W == 6) _tile_dpbf16ps(2, 5, 6);
  if constexpr (SUMS == 3 && X == 5 && W == 7) _tile_dpbf16ps(3, 5, 7);
  static_assert(X == 4 + SUMS / 2 && W == 6 + SUMS % 2, "there are no others");
}
// Of bytes, those of pixels without a sign and those of weights with one, to sums of 32 bits.
template <int SUMS, int X, int W>
[[gnu::always_inline]] inline void tile_byte_dots() {
  if constexpr (SUMS == 0 && X == 4 && W == 6) _tile_dpbusd(0, 4, 6);
  if constexpr (SUMS == 1 && X == 4 && W == 7) _tile_dpbusd(1, 4, 7);
  if constexpr (SUMS == 2 && X == 5 && W == 6) _tile_dpbusd(2, 5, 6);
  if constexpr (SUMS == 3 && X == 5 && W == 7) _tile_dpbusd(3, 5, 7);
  static_assert(X == 4 + SUMS / 2 && W == 6 + SUMS % 2, "there are no others");
}

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "as the instruction reads it");

// Tiles of so many pixels. What a load reads has been written by then: the compiler does not see through the
// instruction.
inline void tiles_begin(int pixels = 16) {
  TileConfig config;
  for (int t = 0; t < 6; ++t) config.rows[t] = static_cast<uint8_t>(pixels);
  _tile_loadconfig(&config);
  __asm__ volatile("" ::: "memory");
}
inline void tiles_end() { _tile_release(); }

}  // namespace
}  // namespace fastcnn
