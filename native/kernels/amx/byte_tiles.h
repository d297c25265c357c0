// How maps of bytes lie under the tile registers of AMX, which multiply 16 x 64 bytes by 64 x 16 and add to sums of 32
// bits: eight times what VNNI does in the same time.
//
// A tile of pixels is read from the map itself: 64 bytes of channels, of taps of a row that follow each other, for 16
// pixels at one distance. What lies behind the last byte that taps reach is multiplied by weights of 0.
//
// Where a tile ends with its row, the rest of it is dropped. Or tiles run on: with rows a whole number of pixels apart,
// what lies between the end of a row and the next is computed and dropped, which wastes less where rows are short.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastcnn {

constexpr int kByteTileBytes = 64;   // of a pixel, multiplied at once
constexpr int kByteTilePixels = 16;  // at most
constexpr int kByteTile = 1024;      // bytes of a tile of weights
constexpr int kByteTilePanel = 2;    // tiles of weights at once: vectors of 16 outputs

struct ByteTileShape {
  int steps = 0;                         // tiles that are multiplied and added
  const int32_t* step_offset = nullptr;  // bytes from the first tap
  int pixels = kByteTilePixels;          // of a tile
  int out_w = 0, out_h = 0;
  int row_tiles = 1;   // if tiles end with rows
  int row_pixels = 0;  // if they run on: from row to row of the input, in pixels; else 0
  int image_tiles = 1;
  ptrdiff_t in_image = 0, in_row = 0, in_pixel = 0;  // bytes between the first taps of two outputs

  // Where a tile of an image begins.
  int row_of(int tile) const { return row_pixels != 0 ? tile * pixels / row_pixels : tile / row_tiles; }
  int column_of(int tile) const { return row_pixels != 0 ? tile * pixels % row_pixels : tile % row_tiles * pixels; }
  // The row in which it ends.
  int last_row_of(int tile) const {
    const int last = row_pixels != 0 ? (tile * pixels + pixels - 1) / row_pixels : row_of(tile);
    return last < out_h ? last : out_h - 1;
  }
};

struct ByteTileArgs {
  const uint8_t* in = nullptr;      // first tap of the first output
  int64_t tile0 = 0, tile1 = 0;     // of all images
  const int8_t* weights = nullptr;  // of the panel: [step][vector][four bytes of the step][16 outputs][4]
  int vectors = 0;                  // of the panel
  const int32_t* start = nullptr;   // what its sums begin with
};

}  // namespace fastcnn
