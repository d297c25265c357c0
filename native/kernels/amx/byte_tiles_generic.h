// Included once per ISA, after the tile registers (kernels/amx/tiles.h): sums of products of bytes.
#pragma once

#include "kernels/amx/byte_tiles.h"

namespace fastcnn {
namespace {

constexpr int kLanes = 16;
constexpr int kSums = kByteTilePanel * kLanes;  // of a pixel

// Sums of P tiles of pixels and N vectors of outputs, to sums[P * pixels of a tile][kSums].
template <int P, int N>
[[gnu::always_inline]] inline void tile_sums(const ByteTileShape& s, const uint8_t* const (&in)[2],
                                             const ByteTileArgs& a, int32_t* sums) {
  tile_load<0>(a.start, 0);  // all rows are the same
  if constexpr (N > 1) tile_load<1>(a.start + kLanes, 0);
  if constexpr (P > 1) tile_load<2>(a.start, 0);
  if constexpr (P > 1 && N > 1) tile_load<3>(a.start + kLanes, 0);
  const int8_t* w = a.weights;
  for (int k = 0; k < s.steps; ++k, w += N * kByteTile) {
    tile_load<6>(w, 64);
    if constexpr (N > 1) tile_load<7>(w + kByteTile, 64);
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

// Hands the sums of a tile to finish(image, y, x, pixels, sums), row by row.
template <class Finish>
[[gnu::always_inline]] inline void finish_rows(const ByteTileShape& s, int64_t tile, const int32_t* sums,
                                               const Finish& finish) {
  const int64_t image = tile / s.image_tiles;
  const int of_image = static_cast<int>(tile % s.image_tiles);
  int left = s.pixels, x = s.column_of(of_image);
  for (int y = s.row_of(of_image); left > 0 && y < s.out_h; ++y, x = 0) {
    const int run = s.row_pixels != 0 && s.row_pixels - x < left ? s.row_pixels - x : left;
    const int kept = s.out_w - x < run ? s.out_w - x : run;
    if (kept > 0) finish(image, y, x, kept, sums);
    sums += run * kSums;
    left -= run;
  }
}

// One panel of N vectors of outputs.
template <int N, class Finish>
[[gnu::always_inline]] inline void byte_tile_panel(const ByteTileShape& s, const ByteTileArgs& a,
                                                   const Finish& finish) {
  alignas(64) int32_t sums[2 * kByteTilePixels * kSums];
  const auto input = [&](int64_t tile) {
    const int of_image = static_cast<int>(tile % s.image_tiles);
    return a.in + tile / s.image_tiles * s.in_image + s.row_of(of_image) * s.in_row +
           s.column_of(of_image) * s.in_pixel;
  };
  tiles_begin(s.pixels);
  for (int64_t tile = a.tile0; tile < a.tile1; tile += 2) {
    const bool two = tile + 1 < a.tile1;
    const uint8_t* const in[2] = {input(tile), two ? input(tile + 1) : nullptr};
    if (two) {
      tile_sums<2, N>(s, in, a, sums);
    } else {
      tile_sums<1, N>(s, in, a, sums);
    }
    finish_rows(s, tile, sums, finish);
    if (two) finish_rows(s, tile + 1, sums + s.pixels * kSums, finish);
  }
  tiles_end();
}

}  // namespace
}  // namespace fastcnn
