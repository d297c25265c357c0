// Rules of the convolutions (runtime/steps/convolution.cpp, tiles.cpp, fft_rows.cpp, amx.cpp, depthwise.cpp).
#include <algorithm>

#include "capi/rules.h"
#include "kernels/amx/amx.h"
#include "kernels/direct/direct.h"
#include "kernels/fft/fft.h"
#include "kernels/unpack/unpack.h"
#include "kernels/winograd/winograd.h"

namespace fastcnn {
namespace {

constexpr int64_t kMostStep = 1 << 20;  // strides, dilations, paddings, kernel extents
constexpr int64_t kMostPhases = 1 << 16;
constexpr int64_t kMostTile = 64;
constexpr int64_t kMostTileStride = 8, kMostTileDilation = 64;

void known_tile(StepRule& r) {
  const DirectKernels& kernels = direct_kernels(r.p.isa);
  const int64_t tile = r.integer("tile", 1, 64), panel = r.integer("panel", 1, 64);
  bool known = false;
  for (int i = 0; i < kernels.config_count; ++i) {
    known |= kernels.configs[i].tile == tile && kernels.configs[i].panel == panel;
  }
  r.require(known, "no such register tile on this instruction set");
}

// Inputs, a blocked output of the same batch, and a residual like it.
void convolution_inputs(StepRule& r) {
  const size_t count = r.epilogue(true, true);
  r.inputs(count);
  r.blocked(r.s.out);
  r.same_batch(r.s.in[0], r.s.out);
  if (count == 2) {
    r.blocked(r.s.in[1]);
    r.same_map(r.s.in[1], r.s.out);
  }
}

void direct_attributes(StepRule& r) {
  known_tile(r);
  const bool panels = r.word("split", {"pixels", "panels"}) == "panels";
  r.integer("pixel_block", 1, INT32_MAX / 2);
  r.integer("sum_terms", 1, 1 << 24);
  const bool compensated = r.integer("compensated", 0, 1, 0) != 0;
  const std::string stored = r.stored();
  r.require(stored != "i16" || (panels && !compensated), "'i16' weights go with split panels and plain sums");
  const bool map = r.s.out.h > 1 || r.s.out.w > 1;
  r.require(stored != "bf16" || (r.s.in[0].blocked && map && !compensated),
            "'bf16' goes with channel-blocked maps and plain sums");
}

// Floats of weights as matrices of `rows` x `columns` in all. In 16 bits they are rounded from a panel of floats; whole
// numbers (runtime/steps/rounding.h) have scales, which weigh more than what is saved where there are few rows.
int64_t packed_floats(StepRule& r, int64_t rows, int64_t columns, int64_t panel_columns) {
  const int64_t count = bounded_product({rows, columns});
  const std::string stored = r.stored();
  if (stored == "f32") return count;
  r.packing = bounded_product({rows, panel_columns});
  if (stored == "bf16") return (count + 1) / 2;
  return (count + 1) / 2 + bounded_product({(rows + kScaleRows - 1) / kScaleRows, columns});
}

// Floats of direct weights: channel blocks as they are read and written, and zeros between narrow groups.
int64_t direct_floats(StepRule& r, int64_t groups, int64_t taps) {
  const Tensor &in = r.s.in[0], &out = r.s.out;
  const int64_t in_lanes = in.blocked ? r.p.lanes : 1;
  int64_t usable = 1;
  for (int64_t g = in.blocked ? groups : 1; g > 1; --g) {
    if (groups % g == 0 && in.c / g % r.p.lanes == 0 && out.c / g % r.p.lanes == 0) {
      usable = g;
      break;
    }
  }
  const int64_t rows = bounded_product({in.blocks / usable, in_lanes, taps});
  return packed_floats(r, rows, static_cast<int64_t>(out.blocks) * r.p.lanes, r.integer("panel", 1, 64) * r.p.lanes) +
         bounded_product({in.blocks, taps});  // and the offsets
}

struct Window {
  const std::vector<int64_t>&stride, &dilation;
};

// Stride, padding and dilation of a kernel whose windows stay within the map and its border.
Window read_window(StepRule& r, const FloatArray& w) {
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.require(w.shape[2] <= kMostStep && w.shape[3] <= kMostStep, "the kernel is too large");
  const auto& stride = r.list("stride", 2, 1, kMostStep);
  const auto& padding = r.list("padding", 4, 0, kMostStep);
  const auto& dilation = r.list("dilation", 2, 1, kMostStep);
  r.reach_rows(out.h, stride[0], dilation[0], w.shape[2], padding, in);
  r.reach(out.w, stride[1], dilation[1], w.shape[3], padding[1], in.w, in.left, in.right);
  return {stride, dilation};
}

}  // namespace

int64_t direct_rule(StepRule& r) {
  convolution_inputs(r);
  direct_attributes(r);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  const FloatArray& w = r.weight("weight", 4);
  const int64_t groups = r.integer("groups", 1, std::min(in.c, out.c));
  r.require(in.c % groups == 0 && out.c % groups == 0, "groups do not divide the channels");
  r.require(in.blocked || groups == 1, "groups need a channel-blocked map");
  r.require(w.shape[0] == out.c && w.shape[1] == in.c / groups, "weight and channels differ");
  const auto [stride, dilation] = read_window(r, w);
  // The rounded copy of what bf16 products read, at most all that the taps reach.
  const int64_t rows = (out.h - 1) * stride[0] + (w.shape[2] - 1) * dilation[0] + 1;
  const int64_t columns = (out.w - 1) * stride[1] + (w.shape[3] - 1) * dilation[1] + 1;
  r.require(r.stored() != "bf16" || bounded_product({in.blocks, r.p.lanes, rows, columns}) <= kMost,
            "'bf16' asks for too much scratch memory");
  return direct_floats(r, groups, w.shape[2] * w.shape[3]);
}

int64_t transposed_rule(StepRule& r) {
  convolution_inputs(r);
  direct_attributes(r);
  r.require(r.stored() == "f32", "a transposed convolution has weights of 'f32' only");
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  const FloatArray& w = r.weight("weight", 4);
  const int64_t groups = r.integer("groups", 1, std::min(in.c, out.c));
  r.require(in.c % groups == 0 && out.c % groups == 0, "groups do not divide the channels");
  r.require(w.shape[0] == in.c && w.shape[1] == out.c / groups, "weight and channels differ");
  r.require(w.shape[2] <= kMostStep && w.shape[3] <= kMostStep, "the kernel is too large");
  const auto& stride = r.list("stride", 2, 1, kMostStep);
  const auto& padding = r.list("padding", 2, 0, kMostStep);
  const auto& dilation = r.list("dilation", 2, 1, kMostStep);
  const int64_t size[2] = {in.h, in.w}, outs[2] = {out.h, out.w};
  const int64_t before[2] = {in.top, in.left}, after[2] = {in.bottom, in.right};
  int64_t phases = 1;
  for (size_t axis = 0; axis < 2; ++axis) {
    phases = bounded_product({phases, std::min(stride[axis], outs[axis])});
    for (int64_t k = 0; k < w.shape[2 + axis]; ++k) {
      // Output o takes input (o + padding - k * dilation) / stride where that divides: first and last such o.
      const int64_t shift = padding[axis] - k * dilation[axis], step = stride[axis];
      const int64_t first = ((-shift) % step + step) % step;
      if (first >= outs[axis]) continue;
      const int64_t last = first + (outs[axis] - 1 - first) / step * step;
      r.require((first + shift) / step >= -before[axis] && (last + shift) / step <= size[axis] - 1 + after[axis],
                "reads past the border of its input");
    }
  }
  const int64_t taps = w.shape[2] * w.shape[3];
  r.require(phases <= kMostPhases && bounded_product({phases, taps}) <= kMostPhases * 1024, "too many phases");
  return direct_floats(r, groups, taps + phases);
}

// The form that find(taps down, taps across) finds for a phase of the stride, or null, and that its tiles cover the
// map.
template <class Find>
const TileForm& tiled_map(StepRule& r, int64_t most_stride, Find find) {
  convolution_inputs(r);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  const FloatArray& w = r.weight("weight", 4);
  const auto& stride = r.list("stride", 2, 1, most_stride);
  const auto& dilation = r.list("dilation", 2, 1, kMostTileDilation);
  const auto& padding = r.list("padding", 4, 0, kMostStep);
  const int64_t size[2] = {in.h, in.w}, outs[2] = {out.h, out.w};
  int64_t taps[2];
  for (size_t i = 0; i < 2; ++i) {
    r.require(stride[i] == 1 || dilation[i] == 1, "stride and dilation along one axis");
    const int64_t kernel = w.shape[2 + i], reach = (std::min(kernel, kMostStep) - 1) * dilation[i] + 1;
    const int64_t room = size[i] + padding[i] + padding[i + 2] - reach;
    r.require(room >= 0 && outs[i] == room / stride[i] + 1, "map and padding differ");
    taps[i] = (kernel + stride[i] - 1) / stride[i];
  }
  const TileForm* form = taps[0] <= kMostTile && taps[1] <= kMostTile ? find(taps[0], taps[1]) : nullptr;
  r.require(form != nullptr, "there is no such form for this kernel");
  r.require(bounded_product({out.n, out.h + dilation[0], out.w + dilation[1]}) <= INT32_MAX,
            "more tiles than can be counted");
  return *form;
}

template <class Find>
int64_t tiles_rule(StepRule& r, std::initializer_list<const char*> splits, Find find) {
  const TileForm& form = tiled_map(r, kMostTileStride, find);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  const FloatArray& w = r.weight("weight", 4);
  r.require(w.shape[0] == out.c && w.shape[1] == in.c, "weight and channels differ");
  r.integer("groups", 1, 1);
  const std::string split = r.word("split", splits);
  const bool rows = split == "rows" || split == "own_rows";
  r.require(r.stored() != "bf16", "spectra are 'f32' or 'i16'");
  const auto& stride = r.list("stride", 2, 1, kMostTileStride);
  const int64_t blocks = bounded_product({in.blocks, stride[0], stride[1]});  // of channels and phases
  r.require(blocks <= INT32_MAX / 256, "too many channels for this stride");
  // No more than there are pixels, but for the maps that dilation makes of fewer rows or columns.
  const auto& dilation = r.list("dilation", 2, 1, kMostTileDilation);
  const int64_t tiles = bounded_product({out.n, out.h + dilation[0], out.w + dilation[1]});
  constexpr int64_t kGroup = 64;  // more register tiles than any kernel has: chunks are whole groups of them
  const int64_t chunk = r.integer("chunk", 1, tiles + kGroup), panel = tile_kernels(r.p.isa).panel;
  // Of one thread, and of V or M: times two and all threads it is far from 64 bits.
  const int64_t most_blocks = std::max(rows ? blocks + out.blocks : blocks, panel);  // by rows: of P and Q
  r.require(bounded_product({form.freqs, chunk + kGroup, most_blocks, r.p.lanes}) <= kMost,
            "'chunk' asks for too much scratch memory");
  return packed_floats(r, blocks * r.p.lanes, bounded_product({form.freqs, out.blocks, r.p.lanes}),
                       bounded_product({form.freqs, panel, r.p.lanes}));
}

int64_t winograd_rule(StepRule& r) {
  const int m = static_cast<int>(r.integer("m", 2, 16));
  return tiles_rule(r, {"tiles", "panels"}, [&](int64_t kh, int64_t kw) -> const TileForm* {
    const WinogradKernel* kernel = find_winograd(r.p.isa, m, static_cast<int>(kh), static_cast<int>(kw));
    return kernel == nullptr ? nullptr : &kernel->form;
  });
}

auto fft_of(StepRule& r) {
  return [&r, tile = r.integer("tile", 2, kMostTile)](int64_t kh, int64_t kw) {
    return std::max(kh, kw) > tile ? nullptr : find_fft(r.p.isa, static_cast<int>(tile));
  };
}
int64_t fft_rule(StepRule& r) { return tiles_rule(r, {"tiles", "panels", "rows", "own_rows"}, fft_of(r)); }

int64_t fft_depthwise_rule(StepRule& r) {
  const TileForm& form = tiled_map(r, 1, fft_of(r));
  const FloatArray& w = r.weight("weight", 4);
  const int64_t channels = r.s.in[0].c;
  r.require(w.shape[0] == channels && w.shape[1] == 1 && r.s.out.c == channels, "needs one filter for each channel");
  r.integer("groups", channels, channels);
  return bounded_product({form.freqs, r.s.out.blocks, r.p.lanes});
}

int64_t amx_rule(StepRule& r) {
  r.require(amx_kernels(r.p.isa) != nullptr, "there is no AMX on this instruction set");
  convolution_inputs(r);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  const FloatArray& w = r.weight("weight", 4);
  r.integer("groups", 1, 1);
  r.require(w.shape[0] == out.c && w.shape[1] == in.c, "weight and channels differ");
  const auto [stride, dilation] = read_window(r, w);
  r.word("split", {"pixels", "panels"});
  const std::string products = r.word("products", {"bf16", "bf16x3", "bf16x6"});
  const int64_t parts = products == "bf16x6" ? 3 : products == "bf16x3" ? 2 : 1;
  const int64_t rows = r.integer("rows", 1, out.h), images = r.integer("images", 1, out.n);
  r.require(images == 1 || rows == out.h, "several images in a block have all their rows");
  r.require(in.blocked || (images == 1 && dilation[1] == 1), "planes go image by image, undilated");
  // The copy: rows and pixels of a block with what the taps reach besides, for every phase of the stride. That of
  // planes has rows that end with whole steps.
  const int64_t size[2] = {(w.shape[2] - 1) * dilation[0] + 1, (w.shape[3] - 1) * dilation[1] + 1};
  const int64_t pairs = in.blocked ? (in.blocks + 1) / 2 : 1;
  const int64_t reached = bounded_product({size[1], in.c}) + kAmxChannels;
  const int64_t row =
      out.w + (in.blocked ? (size[1] - 1) / stride[1] : reached / bounded_product({stride[1], in.c}) + 1);
  const int64_t plane = bounded_product({images, rows + (size[0] - 1) / stride[0], row});
  const int64_t pixel = bounded_product({parts, in.blocked ? kAmxChannels : bounded_product({stride[1], in.c})});
  const int64_t phases = std::min(stride[0], size[0]) * (in.blocked ? std::min(stride[1], size[1]) : 1);
  r.require(plane <= INT32_MAX / 2 && bounded_product({pairs, phases, plane + kAmxPixels, pixel}) <= INT32_MAX / 2,
            "'rows' or 'images' ask for too large a copy");
  const int64_t steps = in.blocked ? bounded_product({pairs, w.shape[2], w.shape[3]})
                                   : bounded_product({w.shape[2], reached / kAmxChannels});
  const int64_t numbers = bounded_product({steps, kAmxTile, out.blocks});
  return (bounded_product({numbers, parts}) + 1) / 2 + steps;  // and the offsets
}

int64_t depthwise_rule(StepRule& r) {
  convolution_inputs(r);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.blocked(in);
  const FloatArray& w = r.weight("weight", 4);
  r.require(in.c == out.c && w.shape[0] == in.c && w.shape[1] == 1, "needs one filter per channel");
  r.integer("groups", in.c, in.c);
  r.word("split", {"rows", "planes"});
  read_window(r, w);
  return bounded_product({out.blocks, r.p.lanes, w.shape[2], w.shape[3]});
}

}  // namespace fastcnn
