// Activations as the last step of a kernel: one enum, one function, shared by every family.
#pragma once

#include "base/simd.h"

namespace fastcnn {

enum class Act : int {
  kNone = 0,
  kClamp = 1,  // min(max(x, lo), hi); relu is lo = 0, hi = inf
  kSilu = 2,
  kHardswish = 3,
  kHardsigmoid = 4,
  kSigmoid = 5,
  kTanh = 6,
  kGelu = 7,
  kGeluTanh = 8,
  kLeakyRelu = 9,  // alpha
  kElu = 10,       // alpha
  kPrelu = 11,     // slope per channel
  kExp = 12,
  kSoftplus = 13,
  kMish = 14,
};

struct Activation {
  Act kind = Act::kNone;
  float lo = 0, hi = 0, alpha = 0;
  const float* slope = nullptr;  // kPrelu: padded to whole channel blocks
};

namespace {

// slope: the V slopes of this channel block, read for kPrelu only.
template <int V>
[[gnu::always_inline]] inline Vec<V> activate(Vec<V> x, const Activation& act, const float* slope) {
  switch (act.kind) {
    case Act::kNone:
      return x;
    case Act::kClamp:
      return min_nan<V>(splat<V>(act.hi), max_nan<V>(splat<V>(act.lo), x));
    case Act::kSilu:
      return x * sigmoid<V>(x);
    case Act::kHardswish:
      return x * min_nan<V>(splat<V>(6.0f), max_nan<V>(Vec<V>{}, x + splat<V>(3.0f))) / splat<V>(6.0f);
    case Act::kHardsigmoid:
      return min_nan<V>(splat<V>(6.0f), max_nan<V>(Vec<V>{}, x + splat<V>(3.0f))) / splat<V>(6.0f);
    case Act::kSigmoid:
      return sigmoid<V>(x);
    case Act::kTanh:
      return tanh<V>(x);
    case Act::kGelu:
      return splat<V>(0.5f) * x * (splat<V>(1.0f) + erf<V>(x * splat<V>(0.70710678118654752f)));
    case Act::kGeluTanh: {
      const Vec<V> inner = splat<V>(0.79788456080286536f) * (x + splat<V>(0.044715f) * x * x * x);
      return splat<V>(0.5f) * x * (splat<V>(1.0f) + tanh<V>(inner));
    }
    case Act::kLeakyRelu:
      return x < 0.0f ? x * splat<V>(act.alpha) : x;
    case Act::kElu: {
      // e^x - 1 near zero as tanh(x/2) * (e^x + 1): no cancellation.
      const Vec<V> em1 = tanh<V>(x * splat<V>(0.5f)) * (exp<V>(x) + splat<V>(1.0f));
      return x < 0.0f ? em1 * splat<V>(act.alpha) : x;
    }
    case Act::kPrelu:
      return x < 0.0f ? x * load<V>(slope) : x;
    case Act::kExp:
      return exp<V>(x);
    case Act::kSoftplus:
      return softplus<V>(x);
    case Act::kMish:
      return x * tanh<V>(softplus<V>(x));
  }
  return x;
}

// The long functions out of line, once per translation unit: `vectors` vectors in place, all of one channel block.
template <int V>
[[gnu::noinline]] inline void activate_run(float* p, int vectors, const Activation& act, const float* slope) {
  for (int i = 0; i < vectors; ++i) store<V>(p + i * V, activate<V>(load<V>(p + i * V), act, slope));
}

}  // namespace
}  // namespace fastcnn
