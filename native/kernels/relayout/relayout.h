// Between planes of pixels and blocks of channels: V x V transpositions in registers.
#pragma once

#include <cstddef>

#include "base/isa.h"

namespace fastcnn {

struct RelayoutKernels {
  Isa isa;
  int lanes;
  // Pixels of `channels` planes (at most V), in_plane floats apart, to out[pixel][V]; the lanes left over become zero.
  void (*to_blocked)(const float* in, ptrdiff_t in_plane, int channels, ptrdiff_t pixels, float* out);
  // The way back.
  void (*to_planar)(const float* in, ptrdiff_t pixels, int channels, float* out, ptrdiff_t out_plane);
};

const RelayoutKernels& relayout_kernels(Isa isa);

}  // namespace fastcnn
