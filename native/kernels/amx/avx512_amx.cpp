#include <immintrin.h>

#include <cstddef>
#include <cstring>

#include "base/bf16.h"

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
template <int SUMS, int X, int W>
[[gnu::always_inline]] inline void tile_dots() {
  if constexpr (SUMS == 0 && X == 4 && W == 6) _tile_dpbf16ps(0, 4, 6);
  if constexpr (SUMS == 1 && X == 4 && W == 7) _tile_dpbf16ps(1, 4, 7);
  if constexpr (SUMS == 2 && X == 5 && W == 6) _tile_dpbf16ps(2, 5, 6);
  if constexpr (SUMS == 3 && X == 5 && W == 7) _tile_dpbf16ps(3, 5, 7);
  static_assert(X == 4 + SUMS / 2 && W == 6 + SUMS % 2, "add_products uses no others");
}

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "as the instruction reads it");

// What a load reads has been written by then: the compiler does not see through the instruction.
inline void tiles_begin() {
  static const TileConfig config;
  _tile_loadconfig(&config);
  __asm__ volatile("" ::: "memory");
}
inline void tiles_end() { _tile_release(); }

}  // namespace
}  // namespace fastcnn

#include "kernels/amx/generic.h"

namespace fastcnn {

const AmxKernels& amx_kernels_avx512_amx() {
  static const AmxKernels kernels = {Isa::kAvx512Amx, false, amx_run, amx_peak, amx_weights, amx_round, amx_interleave};
  return kernels;
}

}  // namespace fastcnn
