// Rules of maps of signs (runtime/steps/signs.cpp, sign_amx.cpp).
#include <algorithm>

#include "capi/rules.h"
#include "kernels/bits/bits.h"
#include "kernels/bits_amx/bits_amx.h"

namespace fastcnn {
namespace {

constexpr int64_t kMostStep = 1 << 20;
constexpr int64_t kMostCases = 1 << 15;

int64_t whole_words(int64_t channels) { return (channels + 31) / 32 * 32; }

// What both convolutions have: words of one filter, and floats of the numbers of each channel.
int64_t products_of_signs(StepRule& r, int64_t& words) {
  r.signs = true;
  const bool to_bits = r.s.out.signs();
  r.inputs(to_bits ? 1 : r.epilogue(true, true));
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.signs() && out.blocked, "multiplies signs, to signs or to a channel-blocked map");
  r.same_batch(in, out);
  if (r.s.in.size() == 2) {
    r.require(r.s.in[1].blocked && r.s.in[1].floats(), "needs a channel-blocked residual");
    r.same_map(r.s.in[1], out);
  }
  const auto &kernel = r.list("kernel", 2, 1, kMostStep), &stride = r.list("stride", 2, 1, kMostStep),
             &padding = r.list("padding", 4, 0, kMostStep), &dilation = r.list("dilation", 2, 1, kMostStep);
  const int64_t groups = r.integer("groups", 1, std::min(in.c, out.c));
  r.require(in.c % groups == 0 && out.c % groups == 0, "groups do not divide the channels");
  r.require(groups == 1 || (in.c / groups % 32 == 0 && out.c / groups % 32 == 0),
            "groups need whole words of channels");
  const int64_t in_planes = r.integer("in_planes", 1, 2, 1), weight_planes = r.integer("weight_planes", 1, 2, 1);
  r.require(in_planes * weight_planes <= 2 && (in_planes == 1 || (groups == 1 && in.c % 64 == 0)),
            "takes two planes of inputs or of weights, of inputs in one group");
  r.reach_rows(out.h, stride[0], dilation[0], kernel[0], padding, in);
  r.reach(out.w, stride[1], dilation[1], kernel[1], padding[1], in.w, in.left, in.right);
  r.integer("length", 1, 1 << 24);
  const FloatArray& w = r.weight("weight", 2);
  words = bounded_product({weight_planes, kernel[0], kernel[1], (in.c / in_planes / groups + 31) / 32});
  r.require(words <= 1 << 24, "the kernel is too large");
  r.require(w.shape[0] == out.c && w.shape[1] == words, "weight, taps and channels differ");
  const int64_t channels = groups * whole_words(out.c / groups);
  int64_t floats = 4 * channels;
  if (to_bits) {
    r.vector_weight("limits", out.c);
  } else if (r.s.weights.count("scale") != 0) {
    r.vector_weight("scale", out.c);
  }
  if (r.s.weights.count("corrections") != 0) {
    const FloatArray& given = r.weight("corrections", 3);
    r.require(given.shape[0] >= 1 && given.shape[1] >= 1 && given.shape[2] == out.c &&
                  bounded_product({given.shape[0], given.shape[1]}) <= kMostCases,
              "corrections are cases of rows by cases of columns by channels");
    r.list("row_cases", static_cast<size_t>(out.h), 0, given.shape[0] - 1);
    r.list("column_cases", static_cast<size_t>(out.w), 0, given.shape[1] - 1);
    floats += bounded_product({given.shape[0], given.shape[1], channels});
    floats += bounded_product({given.shape[0], out.w}) + out.h * 2;
  }
  return floats;
}

}  // namespace

int64_t signs_rule(StepRule& r) {
  r.signs = true;
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.blocked && in.floats() && out.signs(), "makes bits of a channel-blocked map");
  if (r.s.weights.count("limits") != 0) {
    const FloatArray& limits = r.weight("limits", 1);
    r.require(limits.size == 1 || limits.size == 3, "limits are one or three");
    r.require(
        in.n == out.n && in.h == out.h && in.w == out.w && out.c == (limits.size == 1 ? in.c : 2 * whole_words(in.c)),
        "maps differ, or have no room for the planes");
    return static_cast<int64_t>(limits.size);
  }
  r.same_map(in, out);
  for (const char* key : {"scale", "shift"}) {
    if (r.s.weights.count(key) != 0) r.vector_weight(key, out.c);
  }
  return 2 * whole_words(out.c);
}

int64_t sign_pool_rule(StepRule& r) {
  r.signs = true;
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(in.signs() && out.signs() && in.n == out.n && in.c == out.c,
            "needs two maps of signs with the same channels");
  r.list("kernel", 2, 1, kMostStep);
  r.list("stride", 2, 1, kMostStep);
  r.list("padding", 4, 0, kMostStep);
  r.list("dilation", 2, 1, kMostStep);
  return 0;
}

int64_t sign_conv_rule(StepRule& r) {
  int64_t words = 0, floats = products_of_signs(r, words);
  const auto& tile = r.list("tile", 2, 1, 64);
  const BitsKernels& kernels = bits_kernels(r.p.isa);
  r.require(has_tile(kernels.tiles, kernels.tile_count, tile[0], tile[1]), "no such tile on this instruction set");
  const int64_t groups = r.s.integer("groups", 1);
  floats += bounded_product({groups * whole_words(r.s.out.c / groups), words});
  return std::min(floats, kMost);
}

int64_t sign_amx_rule(StepRule& r) {
  r.require(bits_amx_kernels(r.p.isa) != nullptr, "there is no AMX on this instruction set");
  int64_t words = 0, floats = products_of_signs(r, words);
  r.word("split", {"tiles", "panels"});
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(r.s.integer("groups", 1) == 1 && r.s.integer("in_planes", 1) == 1 && r.s.integer("weight_planes", 1) == 1,
            "takes one group and one plane");
  r.require(out.h > 1 || out.w > 1, "takes maps of more than one pixel");
  const auto &kernel = r.s.list("kernel", 2), &stride = r.s.list("stride", 2), &dilation = r.s.list("dilation", 2);
  // The copy, of a byte for every bit.
  const int64_t rows = bounded_product({out.h - 1, stride[0]}) + (kernel[0] - 1) * dilation[0] + 1;
  r.require(bounded_product({rows, in.row, 32}) + bounded_product({kByteTilePixels, stride[1], in.pixel, 32}) <=
                INT32_MAX / 2,
            "the map is too large");
  const int64_t runs = dilation[1] == 1 ? kernel[0] : kernel[0] * kernel[1];
  const int64_t run_bytes = bounded_product({kernel[0] * kernel[1] / runs, in.pixel, 32});
  const int64_t steps = bounded_product({runs, (run_bytes + kByteTileBytes - 1) / kByteTileBytes});
  floats += bounded_product({steps, whole_words(out.c) / 16, kByteTile / 4}) + steps + whole_words(out.c);
  r.packing = run_bytes * runs / 4 + 4 * steps;
  return std::min(floats, kMost);
}

}  // namespace fastcnn
