// What the machine can do at most, measured in the same run as the kernels that are judged by it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/isa.h"

namespace fastcnn {

struct PeakKernels {
  Isa isa;
  int lanes;
  // `iterations` rounds of kChains independent fused multiply-adds in registers; returns something to keep.
  float (*fma)(int64_t iterations);
  // The same of sums of two products in bf16.
  float (*dots)(int64_t iterations);
  // Sums `floats` floats; a multiple of 64.
  float (*read)(const float* data, size_t floats);
  int chains, dot_chains;
};

const PeakKernels& peak_kernels(Isa isa);

}  // namespace fastcnn
