// Winograd minimal filtering, channel-blocked: transforms of one tile and V channels at once.
//
// The three stages of an r x r stride-1 convolution, per chunk of tiles (driver in runtime/steps):
//   V[freq][group][cb][tile][V]  <- BT d B        input()    one tile, one channel block
//   M[freq][tile][panel]         <- V . U[freq]   product()  all tiles of the chunk, one panel of output channels
//   out                          <- AT m A        output()   one tile, one channel block, with bias, residual,
//   activation
//
// A group is at most as many tiles as the product keeps in registers at once: what one pass of it reads is one stream.
#pragma once

#include <cstddef>

#include "base/activation.h"
#include "base/isa.h"
#include "base/region.h"

namespace fastcnn {

struct WinogradOutput {
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

struct WinogradKernel {
  int m, r, t;
  // in: top left pixel of the t x t tile. freq_stride: floats between frequencies of the result.
  void (*input)(const float* in, ptrdiff_t row, ptrdiff_t pixel, float* out, ptrdiff_t freq_stride);
  void (*output)(const float* in, ptrdiff_t freq_stride, const WinogradOutput& o);
};

struct WinogradProduct {
  const float* v = nullptr;    // first group, first channel block
  ptrdiff_t group_stride = 0;  // floats between groups
  const float* u = nullptr;    // [blocks * V][width * V]
  float* m = nullptr;          // [tiles][width * V]
  int group = 1;               // tiles of a group; the last one may have fewer
  int tiles = 0, blocks = 0;   // blocks of input channels
  int width = 0;               // vectors of output channels, at most `panel`
  bool add = false;            // to what m holds
  Region next;                 // what will be read after u: fetched meanwhile
};

struct WinogradKernels {
  Isa isa;
  int lanes;
  int tile, panel;  // tiles of a group and vectors of a panel: the registers of product()
  void (*product)(const WinogradProduct&);
  WinogradKernel forms[5];
  int count;
};

const WinogradKernels& winograd_kernels(Isa isa);

// Kernel of F(m x m, r x r) or null.
const WinogradKernel* find_winograd(Isa isa, int m, int r);

// u[i * t + j] = (G g GT)[i][j] for one r x r filter, in double.
void winograd_filter(int m, int r, const float* g, double* u);

// Copies AT (m x t), G (t x r), BT (t x t) in row-major order; false if there is no such form.
bool winograd_matrices_copy(int m, int r, double* at, double* g, double* bt);

}  // namespace fastcnn
