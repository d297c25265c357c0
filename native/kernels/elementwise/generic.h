#pragma once

#include <cmath>
#include <cstring>

#include "base/simd.h"
#include "kernels/elementwise/elementwise.h"

namespace fastcnn {
namespace {

// Up to V floats from p, zeros after.
template <int V>
[[gnu::always_inline]] inline Vec<V> load_part(const float* p, ptrdiff_t n) {
  alignas(64) float tmp[V] = {};
  for (ptrdiff_t i = 0; i < n; ++i) tmp[i] = p[i];
  return load<V>(tmp);
}
template <int V>
[[gnu::always_inline]] inline void store_part(float* p, ptrdiff_t n, Vec<V> v) {
  alignas(64) float tmp[V];
  store<V>(tmp, v);
  for (ptrdiff_t i = 0; i < n; ++i) p[i] = tmp[i];
}

template <int V>
void ew_unary(const float* in, float* out, ptrdiff_t n, const Activation& act, const float* slope) {
  ptrdiff_t i = 0;
  if (act.kind == Act::kClamp) {
    const Vec<V> lo = splat<V>(act.lo), hi = splat<V>(act.hi);
    for (; i + V <= n; i += V) store<V>(out + i, min_nan<V>(hi, max_nan<V>(lo, load<V>(in + i))));
  }
  if (in != out) std::memmove(out + i, in + i, sizeof(float) * static_cast<size_t>(n - i));
  const ptrdiff_t vectors = (n - i) / V;
  activate_run<V>(out + i, static_cast<int>(vectors), act, slope);
  i += vectors * V;
  if (i < n) {
    alignas(64) float rest[V];
    store<V>(rest, load_part<V>(in + i, n - i));
    activate_run<V>(rest, 1, act, slope);
    store_part<V>(out + i, n - i, load<V>(rest));
  }
}

template <int V>
[[gnu::always_inline]] inline Vec<V> operand(const float* p, Operand mode, ptrdiff_t i, ptrdiff_t left) {
  if (mode == Operand::kScalar) return splat<V>(*p);
  if (mode == Operand::kLanes) return load<V>(p);
  return left >= V ? load<V>(p + i) : load_part<V>(p + i, left);
}

template <int V, BinaryOp OP>
void ew_binary_op(const float* a, Operand am, const float* b, Operand bm, float* out, ptrdiff_t n,
                  const Activation& act, const float* slope) {
  for (ptrdiff_t i = 0; i < n; i += V) {
    const Vec<V> x = operand<V>(a, am, i, n - i), y = operand<V>(b, bm, i, n - i);
    Vec<V> v;
    if constexpr (OP == BinaryOp::kAdd) v = x + y;
    if constexpr (OP == BinaryOp::kSub) v = x - y;
    if constexpr (OP == BinaryOp::kMul) v = x * y;
    if constexpr (OP == BinaryOp::kDiv) v = x / y;
    if (n - i >= V) {
      store<V>(out + i, v);
    } else {
      store_part<V>(out + i, n - i, v);
    }
  }
  if (act.kind != Act::kNone) ew_unary<V>(out, out, n, act, slope);
}

template <int V>
void ew_binary(BinaryOp op, const float* a, Operand am, const float* b, Operand bm, float* out, ptrdiff_t n,
               const Activation& act, const float* slope) {
  switch (op) {
    case BinaryOp::kAdd:
      return ew_binary_op<V, BinaryOp::kAdd>(a, am, b, bm, out, n, act, slope);
    case BinaryOp::kSub:
      return ew_binary_op<V, BinaryOp::kSub>(a, am, b, bm, out, n, act, slope);
    case BinaryOp::kMul:
      return ew_binary_op<V, BinaryOp::kMul>(a, am, b, bm, out, n, act, slope);
    case BinaryOp::kDiv:
      return ew_binary_op<V, BinaryOp::kDiv>(a, am, b, bm, out, n, act, slope);
  }
}

template <int V>
void ew_scale_shift(const float* in, float* out, ptrdiff_t n, const float* scale, const float* shift,
                    const Activation& act, const float* slope) {
  const Vec<V> a = load<V>(scale), b = load<V>(shift);
  for (ptrdiff_t i = 0; i < n; i += V) store<V>(out + i, load<V>(in + i) * a + b);
  if (act.kind != Act::kNone) ew_unary<V>(out, out, n, act, slope);
}

template <int V>
void ew_softmax(const float* in, float* out, ptrdiff_t n, bool log) {
  float top = in[0];
  for (ptrdiff_t i = 1; i < n; ++i) {
    if (in[i] > top || in[i] != in[i]) top = in[i];
  }
  const Vec<V> topv = splat<V>(top);
  double total = 0;  // double: vocabularies of 10^5 classes lose digits in float
  for (ptrdiff_t i = 0; i < n; i += V) {
    const ptrdiff_t left = n - i < V ? n - i : V;
    const Vec<V> x = (left == V ? load<V>(in + i) : load_part<V>(in + i, left)) - topv;
    const Vec<V> e = exp<V>(x);
    alignas(64) float tmp[V];
    store<V>(tmp, e);
    for (ptrdiff_t k = 0; k < left; ++k) total += tmp[k];
    const Vec<V> keep = log ? x : e;
    if (left == V) {
      store<V>(out + i, keep);
    } else {
      store_part<V>(out + i, left, keep);
    }
  }
  const float norm = log ? static_cast<float>(std::log(total)) : static_cast<float>(1.0 / total);
  for (ptrdiff_t i = 0; i < n; ++i) out[i] = log ? out[i] - norm : out[i] * norm;
}

template <int V>
float ew_sum(const float* in, ptrdiff_t n) {
  Vec<V> s0 = {}, s1 = {};
  ptrdiff_t i = 0;
  for (; i + 2 * V <= n; i += 2 * V) {
    s0 += load<V>(in + i);
    s1 += load<V>(in + i + V);
  }
  alignas(64) float tmp[V];
  store<V>(tmp, s0 + s1);
  double total = 0;
  for (int k = 0; k < V; ++k) total += tmp[k];
  for (; i < n; ++i) total += in[i];
  return static_cast<float>(total);
}

template <int V>
void local_response(const LocalResponse& a) {
  const int blocks = (a.channels + V - 1) / V, before = a.before, length = blocks * V + before + a.after;
  // All squares of the row first, zeros around them: a window read right after it was written would wait.
  for (int x = 0; x < a.pixels; ++x) {
    float* squares = a.scratch + static_cast<ptrdiff_t>(x) * length;
    for (int c = 0; c < before; ++c) squares[c] = 0;
    for (int b = 0; b < blocks; ++b) {
      const Vec<V> v = load<V>(a.in + b * a.in_plane + x * V);
      store<V>(squares + before + b * V, v * v);
    }
    for (int c = before + a.channels; c < length; ++c) squares[c] = 0;
  }
  const Vec<V> k = splat<V>(a.k), alpha = splat<V>(a.alpha);
  for (int x = 0; x < a.pixels; ++x) {
    const float* squares = a.scratch + static_cast<ptrdiff_t>(x) * length;
    for (int b = 0; b < blocks; ++b) {
      Vec<V> sum = {};
      for (int j = 0; j <= before + a.after; ++j) sum += load<V>(squares + b * V + j);
      Vec<V> scale = k + alpha * sum;
      if (a.beta == 0.75f) {  // the usual exponent: two roots and no power
        const Vec<V> root = sqrt<V>(scale);
        scale = root * sqrt<V>(root);
      } else if (a.beta == 0.5f) {
        scale = sqrt<V>(scale);
      } else {
        for (int l = 0; l < V; ++l) scale[l] = __builtin_powf(scale[l], a.beta);
      }
      float* out = a.out + b * a.out_plane + x * V;
      store<V>(out, load<V>(a.in + b * a.in_plane + x * V) / scale);
      for (int c = b * V + V; c > a.channels; --c) out[c - 1 - b * V] = 0;  // kept finite
    }
  }
}

template <int V>
ElementwiseKernels make_elementwise(Isa isa) {
  return {isa, V, ew_unary<V>, ew_binary<V>, ew_scale_shift<V>, ew_softmax<V>, ew_sum<V>, local_response<V>};
}

}  // namespace
}  // namespace fastcnn
