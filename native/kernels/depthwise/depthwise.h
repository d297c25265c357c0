// Depthwise convolution on channel-blocked maps: each of the V lanes is one channel with its own filter.
//
//   out[y, x] = act( bias + residual[y, x] + sum_{ky, kx} in[y*sy + ky*dy, x*sx + kx*dx] * w[ky, kx] )
//
// The padding is physically present in the input map. Bound by loads: one input vector per multiply-add, less what a
// tile of neighbouring outputs shares.
#pragma once

#include <cstddef>

#include "base/activation.h"
#include "base/isa.h"

namespace fastcnn {

struct DepthwiseShape {
  int kernel_h = 0, kernel_w = 0, stride_w = 0, dilation_w = 0;
  int out_w = 0;
  ptrdiff_t in_out_row = 0;  // floats between the input rows of vertically adjacent outputs (stride_h * row)
  ptrdiff_t in_tap_row = 0;  // floats between the input rows of vertically adjacent taps (dilation_h * row)
  ptrdiff_t out_row = 0, res_row = 0;
  Activation act;
  bool act_before_residual = false;
};

struct DepthwiseArgs {
  const float* in = nullptr;  // first tap of output (0, 0), this channel block
  float* out = nullptr;
  const float* residual = nullptr;
  const float* weights = nullptr;  // [kernel_h * kernel_w][V]
  const float* bias = nullptr;     // V floats or null
  const float* slope = nullptr;    // V floats, for kPrelu
  int row0 = 0, row1 = 0;
};

struct DepthwiseKernels {
  Isa isa;
  int lanes;
  void (*run)(const DepthwiseShape&, const DepthwiseArgs&);
};

const DepthwiseKernels& depthwise_kernels(Isa isa);

}  // namespace fastcnn
