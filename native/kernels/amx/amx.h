// Convolution on the tile registers of AMX, which multiply 16 x 32 by 32 x 16 numbers of bf16 and add to sums in fp32.
//
// Products "bf16": input and weights are rounded to bf16.
// Products "bf16x3": every number is the sum of two in bf16, rounded and what the rounding left, and three products out
// of four are added: what is dropped is some 2^-17 of a product. fp32 in all but the last bits, at a third of the rate
// of bf16, which is several times that of fp32. (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence
// Datatype for Higher-Precision Computations, 2019.)
//
// The step copies its input: the numbers that a step multiplies for a pixel lie together, and those of the pixels of a
// row, and of row after row, at one distance, so that any 16 pixels that follow each other are a tile.
// Pixels of the copy that no pixel of the output map begins at, at the ends of rows and images, are computed and
// dropped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/activation.h"
#include "base/bf16.h"
#include "base/isa.h"
#include "base/region.h"

namespace fastcnn {

constexpr int kAmxChannels = 32;  // of a step: two blocks of 16; numbers, where the input is planar
constexpr int kAmxPanel = 2;      // blocks of output channels at once
constexpr int kAmxPixels = 32;    // at once; a call may read that many past the last one of its input
constexpr int kAmxTile = 512;     // numbers of bf16 in a tile

struct AmxShape {
  int steps = 0;                         // pairs of channel blocks x taps
  const int32_t* step_offset = nullptr;  // numbers from a pixel
  ptrdiff_t pixel = 0;                   // numbers from pixel to pixel
  ptrdiff_t low = 0;                     // bf16x3: numbers from high parts to low ones; 0: bf16
  int row = 0, out_w = 0;                // pixels from row to row of the copy, and those of them in the map
  ptrdiff_t out_image = 0, out_row = 0, out_pixel = 0, out_plane = 0;
  ptrdiff_t res_image = 0, res_row = 0, res_pixel = 0, res_plane = 0;
  Activation act;
  bool act_before_residual = false;
};

struct AmxArgs {
  const Bf16* in = nullptr;  // pixel 0, step offset 0
  int images = 1;            // in the copy, one after the other
  int rows = 0;              // of an image: of the map
  int image_rows = 0;        // from image to image of the copy
  // [panel][step][high, low][block of the panel][pair of channels][16 outputs][2], from block0 on
  const Bf16* weights = nullptr;
  const float* bias = nullptr;      // channel block 0, padded to whole blocks, or null
  float* out = nullptr;             // first row, channel block 0
  const float* residual = nullptr;  // likewise, or null
  int block0 = 0, blocks = 0;       // output channel blocks
  Region next;                      // what will be read after these weights
};

struct AmxKernels {
  Isa isa;
  bool emulated;
  void (*run)(const AmxShape&, const AmxArgs&);
  // `iterations` rounds of products of bf16 in registers, for the sums of 2 x 2 tiles.
  void (*peak)(int64_t iterations);
  // kAmxChannels channels of `pixels` pixels, that lie in_pixel floats apart in two channel blocks (the second one may
  // be null: zeros), to as many one after the other; low parts, if wanted, follow the high ones of their pixel.
  void (*round)(const float* first, const float* second, ptrdiff_t in_pixel, int pixels, bool split, Bf16* out);
  // Rows of `channels` planes, one plane_floats after the other, to pixels of `channels` numbers; the low parts at
  // out + low, unless it is 0.
  void (*interleave)(const float* in, ptrdiff_t plane_floats, int channels, int pixels, Bf16* out, ptrdiff_t low);
};

// Null where there are none. The emulated instruction set has them for tests.
const AmxKernels* amx_kernels(Isa isa);

}  // namespace fastcnn
