// The tile registers as memory of the thread (kernels/amx/tiles.h), for tests on machines without AMX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastcnn {
namespace {

thread_local float tiles[8][16][16];
thread_local int pixel_rows = 16;  // rows of tiles 0 ... 5

template <int T>
inline void tile_zero() {
  std::memset(tiles[T], 0, sizeof tiles[T]);
}
template <int T>
inline int tile_rows() {
  return T < 6 ? pixel_rows : 16;
}
template <int T>
inline void tile_load(const void* data, ptrdiff_t bytes) {
  for (int r = 0; r < tile_rows<T>(); ++r) std::memcpy(tiles[T][r], static_cast<const char*>(data) + r * bytes, 64);
}
template <int T>
inline void tile_store(void* data, ptrdiff_t bytes) {
  for (int r = 0; r < tile_rows<T>(); ++r) std::memcpy(static_cast<char*>(data) + r * bytes, tiles[T][r], 64);
}
inline float widened(const float (&row)[16], int i) {
  uint16_t bits;
  std::memcpy(&bits, reinterpret_cast<const char*>(row) + 2 * i, sizeof bits);
  const uint32_t u = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}
template <int SUMS, int X, int W>
inline void tile_dots() {
  for (int k = 0; k < 16; ++k) {
    float w[2][16];
    for (int f = 0; f < 16; ++f) {
      for (int i = 0; i < 2; ++i) w[i][f] = widened(tiles[W][k], 2 * f + i);
    }
    for (int p = 0; p < 16; ++p) {
      const float x0 = widened(tiles[X][p], 2 * k), x1 = widened(tiles[X][p], 2 * k + 1);
      for (int f = 0; f < 16; ++f) tiles[SUMS][p][f] = tiles[SUMS][p][f] + x0 * w[0][f] + x1 * w[1][f];
    }
  }
}
template <int SUMS, int X, int W>
inline void tile_byte_dots() {
  for (int p = 0; p < pixel_rows; ++p) {
    int32_t sums[16];
    uint8_t x[64];
    std::memcpy(sums, tiles[SUMS][p], sizeof sums);
    std::memcpy(x, tiles[X][p], sizeof x);
    for (int k = 0; k < 16; ++k) {
      int8_t w[64];
      std::memcpy(w, tiles[W][k], sizeof w);
      for (int f = 0; f < 16; ++f) {
        for (int i = 0; i < 4; ++i) sums[f] += x[4 * k + i] * w[4 * f + i];
      }
    }
    std::memcpy(tiles[SUMS][p], sums, sizeof sums);
  }
}
inline void tiles_begin(int pixels = 16) { pixel_rows = pixels; }
inline void tiles_end() {}

}  // namespace
}  // namespace fastcnn
