// Whole numbers of 8 bits. A map is [image][row][pixel][channel], a byte each, padded to whole groups of 16 channels; a
// byte q stands for (q - zero) * step. Weights are signed bytes; bytes past the last channel have weights of 0.
//
// y = scale * (start + sum of q * w) + bias, where start takes the zeros off; then activation and residual; then to
// floats, or to bytes: round(y * factor) + zero, halves to even, clipped to 0 ... 255. Every float operation is rounded
// by itself, so that all instruction sets agree to the last bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/activation.h"
#include "base/isa.h"
#include "kernels/row_tile.h"

namespace fastcnn {

constexpr int kInt8Group = 16;  // channels
constexpr int kInt8Narrow = 4;  // or as many in a pixel, where a map has no more

// What becomes of the sums of a row, by channel vector and pixel.
struct Int8Out {
  const int32_t* start = nullptr;  // what sums begin with
  const float *scale = nullptr, *bias = nullptr, *slope = nullptr;
  Activation act;
  bool act_before_residual = false;
  // Bytes, (q - residual_zero) * residual_step, or floats as they are.
  const uint8_t* residual = nullptr;
  const float* residual_floats = nullptr;
  ptrdiff_t res_pixel = 0, res_vector = 0;
  float residual_step = 1, residual_zero = 0;
  // Bytes, round(y * factor) + zero, or floats of a blocked map.
  uint8_t* out = nullptr;
  float* out_floats = nullptr;
  ptrdiff_t out_pixel = 0, out_vector = 0;  // in bytes, and in floats
  float factor = 1;
  int zero = 0;
  // Whether levels may be rounded before they are clipped, to low ... high: the activation is a clamp or none, it comes
  // last, and no sum is so large that 32 bits would not hold its level.
  bool direct = false;
  int low = 0, high = 255;
};

// One row of outputs, some channel vectors. Taps are `runs` x `run_taps` runs of `quads` times four channels each.
struct Int8ConvShape {
  int out_w = 0;
  int runs = 0, run_taps = 0, quads = 0;
  ptrdiff_t in_run = 0, in_tap = 0, in_pixel = 0;  // bytes between runs, taps, and the first taps of two outputs
};

struct Int8ConvArgs {
  const uint8_t* in = nullptr;    // first tap of the first output
  const void* weights = nullptr;  // as pack() leaves them
  int vectors = 0;
  Int8Out to;
};

// One row of outputs of a convolution in which every channel has a filter of its own.
struct Int8DepthwiseShape {
  int out_w = 0;
  int rows = 0, columns = 0;                          // of the kernel
  ptrdiff_t in_row = 0, in_column = 0, in_pixel = 0;  // bytes between taps, and between the first taps of two outputs
  int padded = 0;                                     // channels, in whole groups
};

struct Int8DepthwiseArgs {
  const uint8_t* in = nullptr;
  const void* weights = nullptr;  // as depthwise_pack() leaves them
  int vectors = 0;
  Int8Out to;
};

struct Int8Kernels {
  Isa isa;
  int lanes;
  const RowTile* tiles;  // best first; the last is for one pixel
  int tile_count;
  // Bytes that `quads` quadruples of weights of one vector take.
  size_t (*packed_bytes)(int64_t quads);
  // [vector][quad][lane][4] to what conv_row reads.
  void (*pack)(const int8_t* weights, int64_t quads, void* out);
  void (*conv_row)(const RowTile&, const Int8ConvShape&, const Int8ConvArgs&);
  size_t (*depthwise_bytes)(int rows, int columns, int padded);
  // [tap][channel] to what depthwise_row reads.
  void (*depthwise_pack)(const int8_t* weights, int rows, int columns, int padded, void* out);
  void (*depthwise_row)(const Int8DepthwiseShape&, const Int8DepthwiseArgs&);
  // A row of a blocked map (planes `plane` floats apart) to bytes, round(x * factor) + zero up to `high`; NaN as 0. The
  // channels past the last, up to whole groups, become `zero`.
  void (*quantize_row)(const float* in, ptrdiff_t plane, int pixels, int channels, float factor, int zero, int high,
                       uint8_t* out, ptrdiff_t out_pixel);
  // A row of up to four planes of floats to pixels of four bytes; the bytes of planes that are not there become `zero`.
  void (*quantize_planes)(const float* in, ptrdiff_t plane, int pixels, int channels, float factor, int zero, int high,
                          uint8_t* out);
  // And back: (q - zero) * step.
  void (*floats_row)(const uint8_t* in, ptrdiff_t in_pixel, int pixels, int channels, float step, int zero, float* out,
                     ptrdiff_t plane);
  // The largest of `rows` x `columns` pixels, for each of `channels` channels (whole groups).
  void (*largest)(const uint8_t* in, ptrdiff_t row, ptrdiff_t column, int rows, int columns, int channels,
                  uint8_t* out);
};

const Int8Kernels& int8_kernels(Isa isa);

}  // namespace fastcnn
