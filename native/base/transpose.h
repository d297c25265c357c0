// A V x V transposition in registers: log2(V) rounds, each interleaving row i with row i + V/2. Internal linkage, as in
// simd.h.
#pragma once

#include "base/simd.h"

namespace fastcnn {
namespace {

// Lanes a0 b0 a1 b1 ... of the lower halves of a and b, and of the upper ones.
template <int V>
[[gnu::always_inline]] inline void interleave(Vec<V> a, Vec<V> b, Vec<V>& low, Vec<V>& high) {
  if constexpr (V == 16) {
    low = __builtin_shuffle(a, b, IVec<V>{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
    high = __builtin_shuffle(a, b, IVec<V>{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
  } else {
    low = __builtin_shuffle(a, b, IVec<V>{0, 8, 1, 9, 2, 10, 3, 11});
    high = __builtin_shuffle(a, b, IVec<V>{4, 12, 5, 13, 6, 14, 7, 15});
  }
}

template <int V>
[[gnu::always_inline]] inline void transpose(Vec<V> (&x)[V]) {
#pragma GCC unroll 4
  for (int round = 1; round < V; round *= 2) {
    Vec<V> y[V];
#pragma GCC unroll 16
    for (int i = 0; i < V / 2; ++i) interleave<V>(x[i], x[i + V / 2], y[2 * i], y[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < V; ++i) x[i] = y[i];
  }
}

}  // namespace
}  // namespace fastcnn
