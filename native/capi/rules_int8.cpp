// Rules of maps of bytes (runtime/steps/int8.cpp, int8_amx.cpp).
#include <algorithm>

#include "capi/rules.h"
#include "kernels/int8/int8.h"
#include "kernels/int8_amx/int8_amx.h"

namespace fastcnn {
namespace {

constexpr int64_t kMostStep = 1 << 20;

int64_t whole_groups(int64_t channels) { return (channels + kInt8Group - 1) / kInt8Group * kInt8Group; }

// Levels: round(x * factor) + zero.
void levels(StepRule& r, const char* factor, const char* zero) {
  const double value = r.number(factor);
  r.require(value > 1e-38 && value < 1e38, "a factor or a step is out of range");
  r.integer(zero, 0, 255);
}

// What both convolutions have; returns floats of the numbers of each channel.
int64_t products(StepRule& r) {
  r.bytes = true;
  r.inputs(r.epilogue(true, true));
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.bytes() && out.blocked && !out.signs(), "multiplies bytes, to bytes or to a channel-blocked map");
  r.require(!out.bytes() || out.lanes > 1, "makes bytes of more than 4 channels only");
  r.same_batch(in, out);
  if (out.bytes()) {
    levels(r, "out_factor", "out_zero");
    r.integer("border", 0, 255, 0);
  }
  if (r.s.in.size() == 2) {
    const Tensor& residual = r.s.in[1];
    r.require(residual.blocked && !residual.signs() && (residual.floats() || residual.lanes > 1),
              "needs a residual of bytes or a channel-blocked one");
    r.same_map(residual, out);
    if (residual.bytes()) levels(r, "residual_step", "residual_zero");
  }
  for (const char* key : {"start", "scale"}) r.vector_weight(key, out.c);
  r.require(r.s.weights.count("bias") != 0, "has no bias");
  return 5 * whole_groups(out.c);
}

void geometry(StepRule& r, int64_t& taps) {
  const Tensor &in = r.s.in[0], &out = r.s.out;
  const auto &kernel = r.list("kernel", 2, 1, kMostStep), &stride = r.list("stride", 2, 1, kMostStep),
             &padding = r.list("padding", 4, 0, kMostStep), &dilation = r.list("dilation", 2, 1, kMostStep);
  r.reach_rows(out.h, stride[0], dilation[0], kernel[0], padding, in);
  r.reach(out.w, stride[1], dilation[1], kernel[1], padding[1], in.w, in.left, in.right);
  taps = bounded_product({kernel[0], kernel[1]});
}

// Words of one filter.
int64_t filter_words(StepRule& r, int64_t taps) {
  const FloatArray& w = r.weight("weight", 2);
  const int64_t words = bounded_product({taps, r.s.in[0].lanes});
  r.require(words <= 1 << 15, "the kernel is too large");
  r.require(w.shape[0] == r.s.out.c && w.shape[1] == words, "weight, taps and channels differ");
  return words;
}

}  // namespace

int64_t bytes_rule(StepRule& r) {
  r.bytes = true;
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.floats() && out.bytes() && in.blocked == (out.lanes > 1),
            "makes bytes of a channel-blocked map, or of a plain one of few channels");
  r.same_map(in, out);
  levels(r, "factor", "zero");
  r.require(r.integer("high", 0, 255, 255) >= r.integer("zero", 0, 255), "levels end before they begin");
  r.integer("border", 0, 255, 0);
  return 0;
}

int64_t bytes_to_floats_rule(StepRule& r) {
  r.bytes = true;
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.bytes() && in.lanes > 1 && out.blocked && out.floats(), "makes a channel-blocked map of bytes");
  r.same_map(in, out);
  levels(r, "step", "zero");
  return 0;
}

int64_t byte_pool_rule(StepRule& r) {
  r.bytes = true;
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.bytes() && out.bytes() && in.lanes > 1 && in.n == out.n && in.c == out.c,
            "needs two maps of bytes with the same channels");
  r.list("kernel", 2, 1, kMostStep);
  r.list("stride", 2, 1, kMostStep);
  r.list("padding", 4, 0, kMostStep);
  r.list("dilation", 2, 1, kMostStep);
  r.integer("border", 0, 255, 0);
  return 0;
}

int64_t int8_conv_rule(StepRule& r) {
  int64_t floats = products(r), taps = 0;
  geometry(r, taps);
  const auto& tile = r.list("tile", 2, 1, 64);
  const Int8Kernels& kernels = int8_kernels(r.p.isa);
  r.require(has_tile(kernels.tiles, kernels.tile_count, tile[0], tile[1]), "no such tile on this instruction set");
  const Tensor& out = r.s.out;
  const int64_t words = filter_words(r, taps);
  floats += bounded_product({2, whole_groups(out.c), words});
  r.packing = words * 16;
  return std::min(floats, kMost);
}

int64_t int8_amx_rule(StepRule& r) {
  r.require(int8_amx_kernels(r.p.isa) != nullptr, "there is no AMX on this instruction set");
  int64_t floats = products(r), taps = 0;
  geometry(r, taps);
  r.word("split", {"tiles", "panels"});
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.space == Space::kArena, "reads behind its input, in the arena only");
  const int64_t words = filter_words(r, taps);
  const auto &kernel = r.s.list("kernel", 2), &stride = r.s.list("stride", 2), &dilation = r.s.list("dilation", 2);
  r.require(bounded_product({kernel[0], dilation[0], in.row, 4}) <= INT32_MAX / 2 &&
                bounded_product({kernel[1], dilation[1], in.pixel, 4}) <= INT32_MAX / 2,
            "the map is too large");
  // Runs of bytes that are whole tiles of weights: of a row of taps, or of one tap.
  const int64_t runs = dilation[1] == 1 ? kernel[0] : taps;
  const int64_t steps = bounded_product({runs, (taps / runs * in.lanes * 4 + kByteTileBytes - 1) / kByteTileBytes});
  const int64_t pixel =
      out.h == 1 && out.w == 1 ? static_cast<int64_t>(in.image) : bounded_product({stride[1], in.pixel});
  r.packing = words + 4 * steps;
  r.past = std::min(kMost, bounded_product({kByteTilePixels, pixel}) + kByteTileBytes);
  floats += bounded_product({steps, whole_groups(out.c) / 16, kByteTile / 4}) + steps;
  return std::min(floats, kMost);
}

int64_t int8_depthwise_rule(StepRule& r) {
  int64_t floats = products(r), taps = 0;
  geometry(r, taps);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.c == out.c && in.lanes > 1, "has as many inputs as outputs, more than 4");
  const FloatArray& w = r.weight("weight", 2);
  r.require(w.shape[0] == taps && w.shape[1] == in.lanes, "weight, taps and channels differ");
  return std::min(floats + bounded_product({taps, in.lanes}), kMost);
}

}  // namespace fastcnn
