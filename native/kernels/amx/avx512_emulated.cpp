// The tile registers as memory of the thread, for tests on machines without AMX.
#include <cstddef>
#include <cstring>

#include "base/bf16.h"

namespace fastcnn {
namespace {

thread_local float tiles[8][16][16];

template <int T>
inline void tile_zero() {
  std::memset(tiles[T], 0, sizeof tiles[T]);
}
template <int T>
inline void tile_load(const void* data, ptrdiff_t bytes) {
  for (int r = 0; r < 16; ++r) std::memcpy(tiles[T][r], static_cast<const char*>(data) + r * bytes, 64);
}
template <int T>
inline void tile_store(void* data, ptrdiff_t bytes) {
  for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(data) + r * bytes, tiles[T][r], 64);
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
inline void tiles_begin() {}
inline void tiles_end() {}

}  // namespace
}  // namespace fastcnn

#include "kernels/amx/generic.h"

namespace fastcnn {

const AmxKernels& amx_kernels_avx512_emulated() {
  static const AmxKernels kernels = {Isa::kAvx512Emulated, true,      amx_run,       amx_peak,
                                     amx_weights,          amx_round, amx_interleave};
  return kernels;
}

}  // namespace fastcnn
