// Products of +-1 in bits. A map is [image][row][pixel][word] with a channel in each bit, 32 to a word, lowest first. A
// bit that is set stands for -1; bits past the last channel are clear, in maps and in weights, and so is a border,
// which therefore is one of +1. A sum of K products is K less twice the number of bits in which the factors differ.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/activation.h"
#include "base/isa.h"
#include "kernels/row_tile.h"

namespace fastcnn {

// One row of outputs, some channel vectors. Taps are `runs` x `run_taps` runs of `words` words each: the taps of a
// kernel row are one run where they follow each other in memory. Of numbers of several bits, the inputs or the weights
// have a plane of signs for each bit, and every plane counts twice what follows it.
struct BitsConvShape {
  int out_w = 0;
  int in_planes = 1, weight_planes = 1;  // one of them is 1
  ptrdiff_t in_plane = 0;                // words between the planes of a pixel
  int runs = 0, run_taps = 0, words = 0;
  ptrdiff_t in_run = 0, in_tap = 0, in_pixel = 0;  // words between runs, taps, and the first taps of two outputs
  int length = 0;                                  // K times the weights of all planes, padding included
  ptrdiff_t out_pixel = 0;                         // words, or floats, between outputs
  ptrdiff_t out_vector = 0;                        // floats between the channel vectors of a float output
  ptrdiff_t res_vector = 0;
  Activation act;
  bool act_before_residual = false;
};

struct BitsConvArgs {
  const uint32_t* in = nullptr;       // first tap of the first output
  const uint32_t* weights = nullptr;  // [vector][plane][tap][word][V]
  int vectors = 0;
  // What outputs near the border have too much of, where the padding is zero: [case][corrections_case channels], and
  // the case of each output of the row; null where there is nothing to correct.
  const int32_t* corrections = nullptr;
  const uint16_t* cases = nullptr;
  ptrdiff_t corrections_case = 0;
  // Bits: set where 2 * differing bits + correction > limit, by channel. Vector 0 begins at out_bits.
  const int32_t* limits = nullptr;
  void* out_bits = nullptr;
  // Floats: scale * (K - 2 * differing bits - correction) + bias, then activation and residual; scale null: 1.
  const float *scale = nullptr, *bias = nullptr, *slope = nullptr, *residual = nullptr;
  float* out = nullptr;
};

struct BitsKernels {
  Isa isa;
  int lanes;
  const RowTile* tiles;  // best first
  int tile_count;
  void (*conv_row)(const RowTile&, const BitsConvShape&, const BitsConvArgs&);
  // A row of a blocked map (planes `plane` floats apart) to bits: set where scale * x + shift >= 0 does not hold; both
  // null, or padded to whole words of channels.
  void (*pack_row)(const float* in, ptrdiff_t plane, int pixels, int channels, const float* scale, const float* shift,
                   uint32_t* out, ptrdiff_t out_pixel);
  // The same to the planes of numbers 0 ... count, count 1 or 3, the higher bit first, `words` apart: how many of the
  // limits x >= limit holds for. A bit that is set in a number is clear in its plane.
  void (*pack_levels)(const float* in, ptrdiff_t plane, int pixels, int channels, const float* limits, int count,
                      uint32_t* out, ptrdiff_t out_pixel, ptrdiff_t words);
  // `iterations` rounds of independent chains of xor, popcount and add; returns something to keep.
  uint32_t (*peak)(int64_t iterations);
  int peak_chains;
};

const BitsKernels& bits_kernels(Isa isa);

}  // namespace fastcnn
