#pragma once

#include "base/simd.h"
#include "kernels/peak/peak.h"

namespace fastcnn {
namespace {

constexpr int kChains = 12;     // latency 4 or 5 cycles, two units
constexpr int kDotChains = 16;  // up to 8 cycles

template <int V>
float peak_fma(int64_t iterations) {
  // Starts the compiler cannot know: of constant ones it works out a chain and leaves its multiply-adds away.
  volatile float seed = 1e-3f;
  Vec<V> acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = splat<V>(seed);
  Vec<V> a = splat<V>(0.999f), b = splat<V>(1e-6f);
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * a + b;
    __asm__ volatile("" : "+r"(k));  // keep the loop
  }
  float total = 0;
  for (int i = 0; i < kChains; ++i) {
    for (int l = 0; l < V; ++l) total += acc[i][l];
  }
  return total;
}

template <int V>
float peak_dots(int64_t iterations) {
  volatile float seed = 1e-3f;
  Vec<V> acc[kDotChains];
  for (int i = 0; i < kDotChains; ++i) acc[i] = splat<V>(seed);
  const Vec<V> x = splat<V>(seed), w = splat<V>(seed);
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 16
    for (int i = 0; i < kDotChains; ++i) acc[i] = add_dots<V>(acc[i], x, w);
    __asm__ volatile("" : "+r"(k));  // keep the loop
  }
  float total = 0;
  for (int i = 0; i < kDotChains; ++i) {
    for (int l = 0; l < V; ++l) total += acc[i][l];
  }
  return total;
}

template <int V>
float peak_read(const float* data, size_t floats) {
  Vec<V> s0 = {}, s1 = {}, s2 = {}, s3 = {};
  for (size_t i = 0; i + 4 * V <= floats; i += 4 * V) {
    __builtin_prefetch(data + i + 1024);
    if constexpr (V == 16) {
      __builtin_prefetch(data + i + 1024 + 16);
      __builtin_prefetch(data + i + 1024 + 32);
      __builtin_prefetch(data + i + 1024 + 48);
    } else {
      __builtin_prefetch(data + i + 1024 + 16);
    }
    s0 += load<V>(data + i);
    s1 += load<V>(data + i + V);
    s2 += load<V>(data + i + 2 * V);
    s3 += load<V>(data + i + 3 * V);
  }
  const Vec<V> s = (s0 + s1) + (s2 + s3);
  float total = 0;
  for (int l = 0; l < V; ++l) total += s[l];
  return total;
}

template <int V>
PeakKernels make_peak(Isa isa) {
  return {isa, V, peak_fma<V>, peak_dots<V>, peak_read<V>, kChains, kDotChains};
}

}  // namespace
}  // namespace fastcnn
