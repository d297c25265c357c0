// Convolution on the tile registers of AMX, which multiply 16 x 32 by 32 x 16 numbers of bf16 and add to sums in fp32.
//
// A number is kept in 1, 2 or 3 parts of bf16: the number rounded, what that left of it rounded, and so on. Of their
// products those are added that can matter, small ones first, all in fp32 (Henry, Tang, Heinecke: Leveraging the
// bfloat16 Artificial Intelligence Datatype for Higher-Precision Computations, 2019):
//   "bf16"    1 part, 1 product.
//   "bf16x3"  2 parts, 3 products out of 4: what is dropped is 2^-15 of a product at most, and rarely 2^-17.
//   "bf16x6"  3 parts, 6 products out of 9: fp32, but for the order of sums.
// Where bf16 has sixteen times the rate of fp32, six products are still twice as fast.
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
  int parts = 1;                         // of a number
  ptrdiff_t part = 0;                    // numbers from part to part
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
  // [panel][step][part][block of the panel][pair of channels][16 outputs][2], from block0 on
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
  // A row of the tiles of weights, `part` numbers from those of each part to the next: for 16 filters, `apart` floats
  // from one to the next, two numbers each, the first from `even` on and the second from `odd`. Of other than the first
  // `filters`, and of odd where it is null, zeros.
  void (*weights)(const float* even, const float* odd, ptrdiff_t apart, int filters, int parts, Bf16* out,
                  ptrdiff_t part);
  // kAmxChannels channels of `pixels` pixels, that lie in_pixel floats apart in two channel blocks (the second one may
  // be null: zeros), to as many one after the other, each with its parts behind each other.
  void (*round)(const float* first, const float* second, ptrdiff_t in_pixel, int pixels, int parts, Bf16* out);
  // Rows of `channels` planes, one plane_floats after the other, to pixels of `channels` numbers; each further part
  // `part` numbers after the one before.
  void (*interleave)(const float* in, ptrdiff_t plane_floats, int channels, int pixels, int parts, Bf16* out,
                     ptrdiff_t part);
};

// Null where there are none. The emulated instruction set has them for tests.
const AmxKernels* amx_kernels(Isa isa);

}  // namespace fastcnn
