// Rules of the steps that only move numbers (runtime/steps/copy.cpp).
#include "capi/rules.h"

namespace fastcnn {

int64_t relayout_rule(StepRule& r) {
  r.inputs(1);
  r.same_map(r.s.in[0], r.s.out);
  return 0;
}

int64_t copy_region_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  r.blocked(out);
  r.same_batch(in, out);
  const auto& from = r.list("from", 3, 0, INT32_MAX);
  const auto& to = r.list("to", 3, 0, INT32_MAX);
  const auto& size = r.list("size", 3, 1, INT32_MAX);
  const auto& stride = r.list("stride", 2, 1, INT32_MAX);
  const int64_t source[3] = {in.c, in.h, in.w}, target[3] = {out.c, out.h, out.w};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t step = axis == 0 ? 1 : stride[axis - 1];
    r.require(from[axis] + (size[axis] - 1) * step < source[axis], "reads outside its input");
    r.require(to[axis] + size[axis] <= target[axis], "writes outside its output");
  }
  return 0;
}

int64_t strided_copy_rule(StepRule& r) {
  r.inputs(1);
  r.flat(r.s.in[0]);
  r.flat(r.s.out);
  const auto& dims = r.list("dims", 1, kMost);
  r.require(!dims.empty() && dims.size() <= 8, "rank out of range");
  const auto& in_strides = r.list("in_strides", dims.size(), 0, kMost);
  const auto& out_strides = r.list("out_strides", dims.size(), 0, kMost);
  r.walk(dims, in_strides, r.integer("in_offset", 0, kMost, 0), r.s.in[0].count());
  r.walk(dims, out_strides, r.integer("out_offset", 0, kMost, 0), r.s.out.count());
  int64_t total = 1;
  for (int64_t d : dims) total = bounded_product({total, d});
  r.require(total <= r.s.out.count(), "copies more than its output holds");
  return 0;
}

int64_t gather_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.flat(in);
  r.flat(out);
  const int64_t axis = r.integer("axis", 1, in.count()), inner = r.integer("inner", 1, in.count());
  const int64_t slab = bounded_product({axis, inner});
  const auto& indices = r.list("indices", 0, axis - 1);
  const int64_t count = static_cast<int64_t>(indices.size());
  r.require(count > 0 && in.count() % slab == 0, "extents and input differ");
  r.require(bounded_product({in.count() / slab, count, inner}) == out.count(), "extents and output differ");
  return 2 * count;
}

int64_t fill_rule(StepRule& r) {
  r.inputs(0);
  const Tensor& out = r.s.out;
  if (!out.blocked) r.flat(out);
  if (r.s.weights.count("value") == 0) {
    r.number("value");
    return 0;
  }
  r.flat(out);
  const FloatArray& value = r.weight("value", r.s.weights.at("value").shape.size());
  r.require(static_cast<int64_t>(value.size) == out.count(), "the constant is of another size");
  return out.count();
}

int64_t resize_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  r.blocked(out);
  r.require(in.n == out.n && in.c == out.c, "maps differ");
  const size_t h = static_cast<size_t>(out.h), w = static_cast<size_t>(out.w);
  for (const char* key : {"y0", "y1"}) r.list(key, h, 0, in.h - 1);
  for (const char* key : {"x0", "x1"}) r.list(key, w, 0, in.w - 1);
  r.vector_weight("wy", out.h);
  r.vector_weight("wx", out.w);
  return bounded_product({6, out.h + out.w});
}

}  // namespace fastcnn
