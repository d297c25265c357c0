// Register tiles of convolutions that make a row of outputs: channel vectors by pixels.
#pragma once

#include <cstdint>

namespace fastcnn {

struct RowTile {
  int vectors, pixels;
};

namespace {

// Whether there are kernels for a tile.
[[maybe_unused]] inline bool has_tile(const RowTile* tiles, int count, int64_t vectors, int64_t pixels) {
  for (int i = 0; i < count; ++i) {
    if (tiles[i].vectors == vectors && tiles[i].pixels == pixels) return true;
  }
  return false;
}

template <int T, int P>
struct RowTileOf {
  static constexpr int kVectors = T, kPixels = P;
};

// Row has Shape and Args (with out_w, and vectors), and tile<V, T, P>(shape, args, first vector, first pixel).
// P pixels at a time, what is left by halves.
template <class Row, int V, int T, int P>
[[gnu::noinline]] void tile_pixels(const typename Row::Shape& s, const typename Row::Args& a, int v, int first) {
  for (; first + P <= s.out_w; first += P) Row::template tile<V, T, P>(s, a, v, first);
  if constexpr (P > 1) {
    if (first < s.out_w) tile_pixels<Row, V, T, P / 2>(s, a, v, first);
  }
}

// T channel vectors at a time, then single ones.
template <class Row, int V, int T, int P>
void tile_vectors(const typename Row::Shape& s, const typename Row::Args& a) {
  int v = 0;
  for (; v + T <= a.vectors; v += T) tile_pixels<Row, V, T, P>(s, a, v, 0);
  for (; v < a.vectors; ++v) tile_pixels<Row, V, 1, P>(s, a, v, 0);
}

// The whole row by that of the Tiles which is asked for.
template <class Row, int V, class... Tiles>
void tile_row(const RowTile& tile, const typename Row::Shape& s, const typename Row::Args& a) {
  static_cast<void>(((tile.vectors == Tiles::kVectors && tile.pixels == Tiles::kPixels &&
                      (tile_vectors<Row, V, Tiles::kVectors, Tiles::kPixels>(s, a), true)) ||
                     ...));
}

}  // namespace
}  // namespace fastcnn
