// Element-wise work on runs of floats: activations, arithmetic with broadcasting, per-channel scale and shift, and the
// reductions of softmax and mean. Lengths need not be multiples of a vector.
#pragma once

#include <cstddef>

#include "base/activation.h"
#include "base/isa.h"

namespace fastcnn {

enum class BinaryOp : int { kAdd = 0, kSub = 1, kMul = 2, kDiv = 3 };

// How an operand advances: with the output, the same V floats for every vector, or one float for all.
enum class Operand : int { kFull = 0, kLanes = 1, kScalar = 2 };

// y[c] = x[c] / (k + alpha * sum over channels c - before ... c + after of x^2) ^ beta, for pixels in a row of a
// channel-blocked map.
struct LocalResponse {
  const float* in = nullptr;
  float* out = nullptr;
  ptrdiff_t in_plane = 0, out_plane = 0;
  int pixels = 0, channels = 0;
  int before = 0, after = 0;  // less than `channels`
  float alpha = 0, beta = 0, k = 0;
  float* scratch = nullptr;  // pixels * (channels in whole blocks + before + after)
};

struct ElementwiseKernels {
  Isa isa;
  int lanes;
  // slope: V floats for kPrelu, else null.
  void (*unary)(const float* in, float* out, ptrdiff_t n, const Activation& act, const float* slope);
  void (*binary)(BinaryOp op, const float* a, Operand a_mode, const float* b, Operand b_mode, float* out, ptrdiff_t n,
                 const Activation& act, const float* slope);
  // out = act(in * scale + shift), both V floats; n a multiple of V.
  void (*scale_shift)(const float* in, float* out, ptrdiff_t n, const float* scale, const float* shift,
                      const Activation& act, const float* slope);
  // softmax or log-softmax over n contiguous floats.
  void (*softmax)(const float* in, float* out, ptrdiff_t n, bool log);
  float (*sum)(const float* in, ptrdiff_t n);
  void (*local_response)(const LocalResponse& a);
};

const ElementwiseKernels& elementwise_kernels(Isa isa);

}  // namespace fastcnn
