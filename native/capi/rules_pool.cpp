// Rules of pools and normalisations (runtime/steps/pool.cpp, unpool.cpp, group_norm.cpp, layer_norm.cpp,
// local_response_norm.cpp).
#include "capi/rules.h"

namespace fastcnn {

int64_t pool_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  r.blocked(out);
  r.require(in.n == out.n && in.c == out.c, "maps differ");
  const bool average = r.word("kind", {"max", "average"}) == "average";
  if (r.integer("adaptive", 0, 1, 0) != 0) return 0;
  constexpr int64_t kMostWindow = 1 << 15;
  const auto& kernel = r.list("kernel", 2, 1, INT32_MAX / 4);
  const auto& stride = r.list("stride", 2, 1, INT32_MAX / 4);
  const auto& padding = r.list("padding", 4, 0, INT32_MAX / 4);
  const auto& dilation = r.list("dilation", 2, 1, average ? 1 : kMostWindow);
  const int64_t size[2] = {in.h, in.w}, outs[2] = {out.h, out.w};
  for (size_t axis = 0; axis < 2; ++axis) {
    // Windows begin inside the padded map and end within int's range; the kernel clips them to the map.
    r.require((outs[axis] - 1) * stride[axis] - padding[axis] < size[axis], "a window begins past the map");
    r.require(kernel[axis] * dilation[axis] < INT32_MAX / 4, "a window is too long");
    r.require(size[axis] + padding[axis] + padding[axis + 2] < INT32_MAX / 4, "the padded map is too large");
  }
  // The kernel counts a window's values in an int, with those of the padding.
  r.require(bounded_product({kernel[0] + padding[0] + padding[2], kernel[1] + padding[1] + padding[3]}) < INT32_MAX / 2,
            "a window covers too many values");
  if (average) {
    r.integer("count_include_pad", 0, 1, 1);
    r.integer("divisor_override", INT32_MIN, INT32_MAX, 0);
  } else {
    r.integer("count_include_pad", 0, 1, 0);
    r.integer("divisor_override", 0, 0, 0);
  }
  return 0;
}

int64_t unpool_rule(StepRule& r) {
  r.inputs(2);
  const Tensor &values = r.s.in[0], &from = r.s.in[1], &out = r.s.out;
  for (const Tensor* t : {&values, &from, &out}) r.blocked(*t);
  r.same_map(from, out);
  r.require(values.n == out.n && values.c == out.c, "maps differ");
  const auto& kernel = r.list("kernel", 2, 1, INT32_MAX / 4);
  const auto& stride = r.list("stride", 2, 1, INT32_MAX / 4);
  r.list("padding", 4, 0, INT32_MAX / 4);
  r.require(stride[0] >= kernel[0] && stride[1] >= kernel[1], "windows overlap");
  return 0;
}

int64_t local_response_norm_rule(StepRule& r) {
  r.inputs(1);
  r.blocked(r.s.in[0]);
  r.blocked(r.s.out);
  r.same_map(r.s.in[0], r.s.out);
  r.integer("size", 1, 1 << 20);
  for (const char* key : {"alpha", "beta", "k"}) r.number(key);
  return 0;
}

int64_t group_norm_rule(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  r.blocked(out);
  r.same_map(in, out);
  r.require(out.c % r.integer("groups", 1, out.c) == 0, "groups do not divide the channels");
  r.number("eps");
  for (const char* key : {"weight", "bias"}) {
    if (r.s.weights.count(key) != 0) r.vector_weight(key, out.c);
  }
  return bounded_product({2, out.blocks, r.p.lanes});
}

int64_t layer_norm_rule(StepRule& r) {
  r.inputs(1);
  r.flat(r.s.in[0]);
  r.flat(r.s.out);
  const int64_t total = r.s.out.count(), row = r.integer("row", 1, total);
  r.require(r.s.in[0].count() == total && total % row == 0, "rows do not divide the tensors");
  r.number("eps");
  for (const char* key : {"weight", "bias"}) {
    if (r.s.weights.count(key) != 0) r.vector_weight(key, row);
  }
  return 2 * row;
}

}  // namespace fastcnn
