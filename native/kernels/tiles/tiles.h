// Convolution by tiles: transform, multiply, transform back. Shared by Winograd and FFT forms.
//
// A form is bilinear: y = A [(G w) * (B x)], with as many products as it has frequencies; only A, B and G differ
// between forms. A complex frequency is three real ones (kernels/fft). The stages of a stride-1 convolution, per chunk
// of tiles (driver in runtime/steps/tiles.cpp; FFT tiles a row at a time: fft_rows.cpp):
//   V[freq][group][cb][tile][V]  <- B x        input()    one tile, one channel block
//   M[freq][tile][panel]         <- V . U[freq] product()  all tiles of the chunk, one panel of output channels
//   out                          <- A m         output()   one tile, one channel block, with bias, residual, activation
//
// A group is at most as many tiles as the product keeps in registers at once: what one pass of it reads is one stream.
#pragma once

#include <cstddef>

#include "base/activation.h"
#include "base/isa.h"
#include "base/region.h"

namespace fastcnn {

// Rows y0 ... y1 and columns x0 ... x1 of the tile are in memory, the rest of it counts as zeros.
struct TileInput {
  const float* in = nullptr;  // top left pixel of the tile, in memory or not
  ptrdiff_t row = 0, pixel = 0;
  int y0 = 0, y1 = 0, x0 = 0, x1 = 0;
  float* out = nullptr;
  ptrdiff_t freq_stride = 0;  // floats between frequencies
  float* work = nullptr;      // TileForm::work floats
};

struct TileOutput {
  const float* in = nullptr;
  ptrdiff_t freq_stride = 0;
  float* work = nullptr;
  float* out = nullptr;  // top left pixel of the tile
  ptrdiff_t row = 0, pixel = 0;
  const float* residual = nullptr;  // same pixel, or null
  ptrdiff_t res_row = 0, res_pixel = 0;
  const float* bias = nullptr;   // V floats, or null
  const float* slope = nullptr;  // V floats, for kPrelu
  const Activation* act = nullptr;
  bool act_before_residual = false;
  int rows = 0, cols = 0;  // valid part of the tile
};

// Taps of V filters, one beside the other: their spectra, in the order of input()'s frequencies.
struct TileFilter {
  const float* taps = nullptr;  // [kh][kw][V]
  int kh = 0, kw = 0;
  float* out = nullptr;
  ptrdiff_t freq_stride = 0;
  float* work = nullptr;
};

// Adds to rows y0 ... y1 and columns x0 ... x1 of a tile of the map; the rest of it is dropped.
struct TileSpread {
  const float* in = nullptr;
  ptrdiff_t freq_stride = 0;
  float* work = nullptr;
  float* out = nullptr;  // top left pixel of the tile, in memory or not
  ptrdiff_t row = 0, pixel = 0;
  int y0 = 0, y1 = 0, x0 = 0, x1 = 0;
};

// Taps of V filters, one beside the other, from what belongs to each frequency.
struct TileTaps {
  const float* in = nullptr;
  ptrdiff_t freq_stride = 0;
  float* work = nullptr;
  int kh = 0, kw = 0;
  float* taps = nullptr;  // [kh][kw][V]
};

// The last three are the adjoints of the first three, for training: with B, A, G as above and U = G w, V = B x,
//   gradient of x: B^T (U A^T dy), summed over filters    gradient of w: G^T (V A^T dy), summed over tiles
struct TileForm {
  int t_y = 0, t_x = 0;  // input tile
  int freqs = 0;         // products
  size_t work = 0;       // floats of workspace
  void (*input)(const TileInput&) = nullptr;
  void (*output)(const TileOutput&) = nullptr;
  void (*filter)(const TileFilter&) = nullptr;
  void (*gradient)(const TileInput&) = nullptr;  // A^T: of a tile of the output
  void (*spread)(const TileSpread&) = nullptr;   // B^T
  void (*taps)(const TileTaps&) = nullptr;       // G^T
};

struct TileProduct {
  const float* v = nullptr;    // first group, first channel block
  ptrdiff_t group_stride = 0;  // floats between groups
  const float* u = nullptr;    // [blocks * V][width * V]
  // Or, instead of u, in 16 bits: the codes of u, and a scale for kScaleRows rows of a column (kernels/unpack). Sums of
  // products with codes overflow where inputs are beyond 1e32.
  const int16_t* codes = nullptr;
  const float* scales = nullptr;
  float* m = nullptr;         // [tiles][width * V]
  int group = 1;              // tiles of a group; the last one may have fewer
  int tiles = 0, blocks = 0;  // blocks of input channels
  int width = 0;              // vectors of output channels, at most `panel`
  bool add = false;           // to what m holds
  Region next;                // what will be read after u or codes: fetched meanwhile
};

// Of one frequency: out[c][f] += sum over tiles of x[tile][c] * g[tile][f], with x and g as V is for product().
struct TileOuter {
  const float* x = nullptr;  // first group, first channel block
  ptrdiff_t x_group = 0;     // floats between groups
  int x_blocks = 0;
  const float* g = nullptr;
  ptrdiff_t g_group = 0;
  int g_blocks = 0;
  int group = 1;  // tiles of a group; the last one may have fewer
  int tiles = 0;
  float* out = nullptr;  // [x_blocks * V][g_blocks * V]
};

struct TileKernels {
  Isa isa;
  int lanes;
  int tile, panel;  // tiles of a group and vectors of a panel: the registers of product()
  void (*product)(const TileProduct&);
  // v *= u, in whole vectors: where there is no sum over channels.
  void (*multiply)(const float* u, float* v, size_t floats);
  void (*outer)(const TileOuter&);
};

const TileKernels& tile_kernels(Isa isa);

}  // namespace fastcnn
