// Max and average pooling on channel-blocked maps, one plane (image, channel block) and a range of output rows at a
// time. Windows are clipped to the map, so borders are never read.
#pragma once

#include <cstddef>

#include "base/isa.h"

namespace fastcnn {

enum class PoolKind : int { kMax = 0, kAverage = 1 };

struct PoolShape {
  PoolKind kind = PoolKind::kMax;
  bool adaptive = false;  // windows [y*H/OH, ceil((y+1)*H/OH)), kernel, stride and padding unused
  int h = 0, w = 0, out_h = 0, out_w = 0;
  int kernel_h = 0, kernel_w = 0, stride_h = 0, stride_w = 0, dilation_h = 1, dilation_w = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  bool count_include_pad = true;
  int divisor_override = 0;  // 0: none
  ptrdiff_t in_row = 0, out_row = 0;
};

struct PoolKernels {
  Isa isa;
  int lanes;
  void (*run)(const PoolShape&, const float* in, float* out, int row0, int row1);
};

const PoolKernels& pool_kernels(Isa isa);

}  // namespace fastcnn
