// Weights kept in 16 bits and expanded to fp32 a cache-sized piece at a time or in registers, where reading them is
// what costs.
//
//   w[k][f] = scale[k / kScaleRows][f] * q[k][f],  q in -32767 ... 32767
//
// One scale for 64 products of one output channel: the rounding error is that of some 16 significant bits, about a
// hundredth of what fp16 would leave.
#pragma once

#include <cstdint>

#include "base/isa.h"

namespace fastcnn {

constexpr int kScaleRows = 64;
constexpr int kUnpackAhead = 2048;  // entries, 4 KiB: what both fetch ahead of what they read

struct UnpackKernels {
  Isa isa;
  int lanes;
  // `rows` rows of `vectors` vectors (1, 2, 3, 4 or 8), all under one row of scales.
  void (*i16)(const int16_t* q, const float* scale, int rows, int vectors, float* out);
  // out[f] += sum over k of x[k] * w[k][f]: all rows of a panel, expanded in registers, for the only pixel there is.
  void (*dot)(const int16_t* q, const float* scale, const float* x, int rows, int vectors, float* out);
};

const UnpackKernels& unpack_kernels(Isa isa);

}  // namespace fastcnn
