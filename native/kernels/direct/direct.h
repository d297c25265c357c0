// Direct convolution, and everything that is one: 1x1 as GEMM, k x k, stems on planar images, groups, phases of a
// transposed convolution, linear layers (a map of one pixel), and the per-frequency product of Winograd.
//
//   out[q, f] = act( bias[f] + residual[q, f] + sum_s sum_l in[pixel(q) + step_offset[s] + l] * w[s, l, f] )
//
// A "step" is one (channel block, tap) pair and carries `lanes` consecutive input floats: V for channel-blocked maps,
// 1 for planar ones. Pixels are numbered through an OH x OW map; each has its own input and output address, so a tile
// of pixels may run over the end of a row. Weights are packed [panel][step][lane][panel width].
//
// The same in bf16, summed in fp32: input and weights are rounded, and two lanes that follow each other are multiplied
// at once, so that weights are packed [panel][step][pair of lanes][panel width][2].
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/activation.h"
#include "base/bf16.h"
#include "base/isa.h"
#include "base/region.h"

namespace fastcnn {

struct DirectShape {
  int out_w = 0;                         // pixels in a row
  int lanes = 0;                         // V or 1
  int steps = 0;                         // channel blocks x taps
  int step_block = 0;                    // steps between two visits of the accumulators (cache blocking)
  int compensated_run = 0;               // steps summed in a row before a compensated addition; 0: plain sums
  const int32_t* step_offset = nullptr;  // floats, relative to a pixel's input address
  ptrdiff_t in_row = 0, in_pixel = 0;    // floats between vertically / horizontally adjacent pixels of the output map
  ptrdiff_t out_row = 0, out_pixel = 0, out_plane = 0;
  ptrdiff_t res_row = 0, res_pixel = 0, res_plane = 0;
  Activation act;
  bool act_before_residual = false;
};

template <class T>
struct DirectArgsOf {
  const T* in = nullptr;            // pixel (0, 0), first channel block, tap offset 0
  float* out = nullptr;             // pixel (0, 0) of channel block 0
  const float* residual = nullptr;  // likewise, or null
  const T* weights = nullptr;       // of block `block0`
  const float* bias = nullptr;      // channel block 0, padded to whole blocks, or null
  int block0 = 0;                   // first output channel block of this call
  int blocks = 0;                   // output channel blocks
  int pixel0 = 0, pixel1 = 0;       // half-open range of pixels
  Region next;                      // what will be read after these weights: fetched meanwhile
  int step0 = 0, step1 = 0;         // half-open range of steps that `weights` holds; step1 = 0: all of them
};
using DirectArgs = DirectArgsOf<float>;
using DirectArgsBf16 = DirectArgsOf<Bf16>;

struct DirectConfig {
  int tile = 0;   // pixels at once
  int panel = 0;  // channel vectors at once
};

// Width of the next panel when `left` channel vectors remain: the whole panel, or the widest there is a kernel for.
// Packing and kernels both walk the channels with this rule. Internal linkage: see base/simd.h.
namespace {
inline int panel_width(int panel, int left) {
  for (int width : {8, 4, 3, 2}) {
    if (width <= panel && width <= left) return width;
  }
  return 1;
}
}  // namespace

// Runs blocks in panels of `config.panel` vectors (the last one narrower), pixels in tiles of `config.tile`.
template <class T>
using DirectFn = void (*)(const DirectShape&, const DirectArgsOf<T>&, DirectConfig);

struct DirectKernels {
  Isa isa;
  int lanes;  // V
  DirectFn<float> run;
  DirectFn<Bf16> run_bf16;  // for channel-blocked maps
  // Vectors of V floats that lie in_step apart, to as many that lie out_step apart.
  void (*to_bf16)(const float* in, ptrdiff_t in_step, int vectors, Bf16* out, ptrdiff_t out_step);
  bool bf16_pays;           // there is an instruction for it: elsewhere it is slower than fp32
  DirectConfig configs[4];  // best first for a map of many pixels; the last one is for one or two pixels
  int config_count;
};

const DirectKernels& direct_kernels(Isa isa);

}  // namespace fastcnn
