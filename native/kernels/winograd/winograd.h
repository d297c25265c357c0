// Winograd minimal filtering, channel-blocked: transforms of one tile and V channels at once.
//
// The three stages of a 3x3 stride-1 convolution, per chunk of tiles (driver in runtime/steps):
//   V[freq][cb][tile][V]  <- BT d B        input()   one tile, one channel block
//   M[freq][tile][panel]  <- V . U[freq]   direct_kernels(): frequencies are 1x1 convolutions whose pixels are tiles
//   out                   <- AT m A        output()  one tile, one channel block, with bias, residual and activation
#pragma once

#include <cstddef>

#include "base/activation.h"
#include "base/isa.h"

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

struct WinogradKernels {
  Isa isa;
  int lanes;
  WinogradKernel forms[3];
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
