// Rules of activations, arithmetic, reductions and products (runtime/steps/elementwise.cpp, matmul.cpp).
#include "capi/rules.h"

namespace fastcnn {

// One layout on both sides; plain tensors are walked as one run.
static void same_layout(StepRule& r) {
  for (const Tensor& t : r.s.in) r.require(t.blocked == r.s.out.blocked, "layouts differ");
  if (r.s.out.blocked) return;
  for (const Tensor& t : r.s.in) r.flat(t);
  r.flat(r.s.out);
}

int64_t unary_rule(StepRule& r) {
  r.inputs(1);
  same_layout(r);
  if (r.s.out.blocked) {
    r.same_map(r.s.in[0], r.s.out);
  } else {
    r.require(r.s.in[0].count() == r.s.out.count(), "sizes differ");
  }
  r.epilogue(false, false);
  return 0;
}

int64_t math_rule(StepRule& r) {
  r.inputs(1);
  same_layout(r);
  r.same_map(r.s.in[0], r.s.out);
  if (r.word("kind", {"sqrt", "abs", "sign", "quantize"}) == "quantize") {
    for (const char* key : {"factor", "step", "zero", "low", "high"}) r.number(key);
  }
  return 0;
}

int64_t binary_rule(StepRule& r) {
  r.inputs(2);
  same_layout(r);
  r.epilogue(false, false);
  r.word("kind", {"add", "sub", "mul", "div"});
  const Tensor& out = r.s.out;
  if (out.blocked) {
    for (const Tensor& t : r.s.in) {
      r.require(t.c == out.c && (t.n == 1 || t.n == out.n), "an operand has other channels or images");
      r.require((t.h == out.h && t.w == out.w) || (t.h == 1 && t.w == 1), "an operand does not broadcast");
    }
    return 0;
  }
  const auto& dims = r.list("dims", 1, kMost);
  r.require(!dims.empty() && dims.size() <= 8, "rank out of range");
  int64_t total = 1;
  for (int64_t d : dims) total = bounded_product({total, d});
  r.require(total == out.count(), "extents and output differ");
  const char* names[2] = {"a_strides", "b_strides"};
  for (size_t i = 0; i < 2; ++i) {
    const auto& strides = r.list(names[i], dims.size(), 0, kMost);
    r.require(strides.back() <= 1, "an operand's last axis is not dense");
    r.walk(dims, strides, 0, r.s.in[i].count());
  }
  return 0;
}

int64_t scale_shift_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  r.blocked(out);
  r.same_map(in, out);
  r.epilogue(false, false);
  for (const char* key : {"scale", "shift"}) {
    const int64_t length = r.weight(key, 1).shape[0];
    r.require(length == 1 || length == out.c, "scale and shift need one value, or one per channel");
  }
  return bounded_product({3, out.blocks, r.p.lanes});
}

int64_t softmax_rule(StepRule& r) {
  r.inputs(1);
  same_layout(r);
  r.flat(r.s.out);
  const int64_t outer = r.integer("outer", 1, kMost), axis = r.integer("axis", 1, kMost);
  const int64_t inner = r.integer("inner", 1, kMost), total = bounded_product({outer, axis, inner});
  r.require(total == r.s.in[0].count() && total == r.s.out.count(), "extents and tensors differ");
  r.integer("log", 0, 1, 0);
  return 0;
}

int64_t reduce_rule(StepRule& r) {
  r.inputs(1);
  same_layout(r);
  r.word("kind", {"mean", "sum", "max"});
  r.flat(r.s.out);
  std::vector<int64_t> dims = r.list("kept", 1, kMost), strides = r.list("kept_strides", dims.size(), 0, kMost);
  const auto& reduced = r.list("reduced", 1, kMost);
  const auto& reduced_strides = r.list("reduced_strides", reduced.size(), 0, kMost);
  int64_t kept = 1, total = 1;
  for (int64_t d : dims) kept = bounded_product({kept, d});
  for (int64_t d : reduced) total = bounded_product({total, d});
  r.require(kept == r.s.out.count(), "extents and output differ");
  r.require(bounded_product({kept, total}) == r.s.in[0].count(), "extents and input differ");
  dims.insert(dims.end(), reduced.begin(), reduced.end());
  strides.insert(strides.end(), reduced_strides.begin(), reduced_strides.end());
  r.walk(dims, strides, 0, r.s.in[0].count());
  return 0;
}

int64_t matmul_rule(StepRule& r) {
  r.inputs(2);
  same_layout(r);
  r.flat(r.s.out);
  const int64_t m = r.integer("m", 1, kMost), k = r.integer("k", 1, kMost), n = r.integer("n", 1, kMost);
  const int64_t count = r.integer("count", 1, kMost);
  r.require(r.s.in[0].count() == bounded_product({count, m, k}) &&
                r.s.in[1].count() == bounded_product({count, k, n}) &&
                r.s.out.count() == bounded_product({count, m, n}),
            "extents and tensors differ");
  return 0;
}

}  // namespace fastcnn
