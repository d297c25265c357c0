// Convolution and transposed convolution on the direct kernels.
//
// Both become phases: stride-1 walks over an output grid with a list of taps. A convolution is one phase; a transposed
// convolution with stride s is s*s phases, each writing every s-th output row and column.
#include <algorithm>

#include "kernels/direct/direct.h"
#include "runtime/step.h"
#include "runtime/steps/rounding.h"

namespace fastcnn {
namespace {

struct Tap {
  int dy, dx;  // input position relative to the phase's pixel, in rows and pixels
  int ky, kx;  // weight
};

struct Phase {
  int out_h = 0, out_w = 0;  // grid
  int in_step_y = 1, in_step_x = 1;
  int out_step_y = 1, out_step_x = 1, out_y = 0, out_x = 0;
  std::vector<Tap> taps;
  // Filled by pack():
  DirectShape shape;
  std::vector<int32_t> offsets;
  Buffer weights;          // [panel][step][lane][panel width]
  RoundedWeights rounded;  // the same in 16 bits
};

// Groups the kernels can run on whole channel blocks; 1 (with zero weights between groups) always works.
int usable_groups(int groups, int in_c, int out_c, int lanes) {
  for (int g = groups; g > 1; --g) {
    if (groups % g == 0 && in_c / g % lanes == 0 && out_c / g % lanes == 0) return g;
  }
  return 1;
}

class DirectStep final : public Step {
 public:
  DirectStep(const StepSpec& spec, std::vector<Phase> phases, bool transposed)
      : in_(spec.in.at(0)),
        kernels_(direct_kernels(spec.isa)),
        unpack_(unpack_kernels(spec.isa)),
        phases_(std::move(phases)) {
    out = spec.out;
    epilogue_ = parse_epilogue(spec, out.blocks, kernels_.lanes);
    if (epilogue_.has_residual) residual_ = spec.in.at(1);
    config_ = {static_cast<int>(spec.integer("tile")), static_cast<int>(spec.integer("panel"))};
    pixel_block_ = static_cast<int>(spec.integer("pixel_block"));
    split_panels_ = spec.word("split", "pixels") == "panels";
    const int groups = static_cast<int>(spec.integer("groups"));
    groups_ = in_.blocked ? usable_groups(groups, in_.c, out.c, kernels_.lanes) : 1;
    in_blocks_ = in_.blocked ? in_.blocks / groups_ : in_.c;
    out_blocks_ = out.blocks / groups_;
    bool known = false;
    for (int i = 0; i < kernels_.config_count; ++i) {
      known |= kernels_.configs[i].tile == config_.tile && kernels_.configs[i].panel == config_.panel;
    }
    if (!known || pixel_block_ < 1) throw std::invalid_argument("direct: no such tile configuration");
    const int run = std::max(1, static_cast<int>(spec.integer("sum_terms")) / (in_.blocked ? kernels_.lanes : 1));
    const bool compensated = spec.integer("compensated", 0) != 0;
    i16_ = spec.word("weights", "f32") == "i16";
    for (Phase& phase : phases_) {
      pack(phase, spec, groups, transposed);
      DirectShape& s = phase.shape;
      // Blocks of equal length, so that no short rest costs a visit of the accumulators.
      const int visits = compensated ? 1 : (s.steps + run - 1) / run;
      s.step_block = (s.steps + visits - 1) / visits;
      s.compensated_run = compensated ? run : 0;
    }
  }

  std::string kernel() const override {
    return std::string(i16_ ? "direct_i16_" : "direct_f32_") + std::to_string(config_.tile) + "x" +
           std::to_string(config_.panel * kernels_.lanes) + "_" + isa_name(kernels_.isa);
  }

  size_t weight_bytes() const override {
    size_t bytes = epilogue_.bytes();
    for (const Phase& p : phases_) {
      bytes += p.weights.size() * sizeof(float) + p.rounded.bytes() + p.offsets.size() * sizeof(int32_t);
    }
    return bytes;
  }

  size_t scratch_floats(int threads) const override { return i16_ ? static_cast<size_t>(threads) * kPiece : 0; }

  void run(const RunContext& ctx) const override {
    for (const Phase& phase : phases_) {
      if (i16_) {
        run_unpacking(ctx, phase);
      } else if (split_panels_) {
        run_panels(ctx, phase);
      } else {
        run_pixels(ctx, phase);
      }
    }
  }

 private:
  void pack(Phase& p, const StepSpec& spec, int groups, bool transposed) {
    const FloatArray& w = spec.weight("weight");
    const int V = kernels_.lanes;
    const int64_t kh = w.shape.at(2), kw = w.shape.at(3);
    const int in_c = in_.c, out_c = out.c;
    const int in_per_group = in_c / groups, out_per_group = out_c / groups;
    const int lanes = in_.blocked ? V : 1;
    DirectShape& s = p.shape;
    s.lanes = lanes;
    s.out_w = p.out_w;
    s.in_row = p.in_step_y * in_.row;
    s.in_pixel = p.in_step_x * in_.pixel;
    s.out_row = p.out_step_y * out.row;
    s.out_pixel = p.out_step_x * out.pixel;
    s.out_plane = out.plane;
    s.res_row = p.out_step_y * residual_.row;
    s.res_pixel = p.out_step_x * residual_.pixel;
    s.res_plane = residual_.plane;
    s.act = epilogue_.act;
    s.act_before_residual = epilogue_.act_before_residual;
    fold_batch_ = p.out_h == 1 && p.out_w == 1 && phases_.size() == 1;
    if (fold_batch_) {  // a map of one pixel: images are the pixels
      s.out_w = in_.n;
      s.in_pixel = in_.image;
      s.out_pixel = out.image;
      s.res_pixel = residual_.image;
    }
    std::vector<Tap> taps = p.taps;
    const bool empty = taps.empty();  // a phase no tap falls into: bias only
    if (empty) taps.push_back({0, 0, 0, 0});
    for (int cb = 0; cb < in_blocks_; ++cb) {
      for (const Tap& tap : taps) {
        const ptrdiff_t offset = cb * in_.plane + tap.dy * in_.row + tap.dx * in_.pixel;
        if (offset != static_cast<int32_t>(offset)) throw std::invalid_argument("direct: the input map is too large");
        p.offsets.push_back(static_cast<int32_t>(offset));
      }
    }
    s.steps = static_cast<int>(p.offsets.size());
    s.step_offset = p.offsets.data();
    const size_t rows = static_cast<size_t>(s.steps) * lanes, columns = static_cast<size_t>(groups_) * out_blocks_ * V;
    Buffer panel;
    if (i16_) {
      p.rounded = RoundedWeights(rows, columns);
      panel = Buffer(rows * config_.panel * V);
    } else {
      p.weights = Buffer(rows * columns);
    }
    size_t column = 0;
    for (int g = 0; g < groups_; ++g) {
      for (int b = 0; b < out_blocks_;) {
        const int width = panel_width(config_.panel, out_blocks_ - b) * V;
        float* to = i16_ ? panel.data() : p.weights.data() + rows * column;
        const float* filled = to;
        for (int cb = 0; cb < in_blocks_; ++cb) {
          for (const Tap& tap : taps) {
            for (int l = 0; l < lanes; ++l) {
              const int c = (g * in_blocks_ + cb) * lanes + l;
              for (int k = 0; k < width; ++k, ++to) {
                const int f = (g * out_blocks_ + b) * V + k;
                *to = 0.0f;
                if (empty || c >= in_c || f >= out_c || c / in_per_group != f / out_per_group) continue;
                const int64_t index =
                    transposed
                        ? ((static_cast<int64_t>(c) * out_per_group + f % out_per_group) * kh + tap.ky) * kw + tap.kx
                        : ((static_cast<int64_t>(f) * in_per_group + c % in_per_group) * kh + tap.ky) * kw + tap.kx;
                *to = w.data[index];
              }
            }
          }
        }
        if (i16_) p.rounded.round(filled, column, static_cast<size_t>(width));
        b += width / V;
        column += static_cast<size_t>(width);
      }
    }
  }

  DirectArgs args(const RunContext& ctx, const Phase& p, int n, int group) const {
    const int V = kernels_.lanes;
    DirectArgs a;
    const ptrdiff_t first = static_cast<ptrdiff_t>(group) * out_blocks_;
    a.in = ctx.at(in_) + n * in_.image + group * in_blocks_ * in_.plane;
    a.out = ctx.at(out) + n * out.image + p.out_y * out.row + p.out_x * out.pixel;
    if (epilogue_.has_residual) {
      a.residual = ctx.at(residual_) + n * residual_.image + p.out_y * residual_.row + p.out_x * residual_.pixel;
    }
    if (!i16_) a.weights = p.weights.data() + first * V * p.shape.steps * p.shape.lanes;
    a.bias = epilogue_.bias.size() != 0 ? epilogue_.bias.data() : nullptr;
    a.block0 = static_cast<int>(first);
    a.blocks = out_blocks_;
    return a;
  }

  int images() const { return fold_batch_ ? 1 : in_.n; }
  int pixels(const Phase& p) const { return fold_batch_ ? in_.n : p.out_h * p.out_w; }

  void run_pixels(const RunContext& ctx, const Phase& p) const {
    const int64_t per_image = pixels(p);
    int64_t begin, end;
    if (images() % ctx.threads == 0) {
      ctx.part(images() * per_image, begin, end, per_image);
    } else {
      ctx.part(images() * per_image, begin, end, config_.tile);
    }
    while (begin < end) {
      const int n = static_cast<int>(begin / per_image);
      const int64_t stop = std::min(end, (n + 1) * per_image);
      for (; begin < stop; begin += pixel_block_) {
        for (int g = 0; g < groups_; ++g) {
          DirectArgs a = args(ctx, p, n, g);
          a.pixel0 = static_cast<int>(begin - n * per_image);
          a.pixel1 = static_cast<int>(std::min(stop, begin + pixel_block_) - n * per_image);
          kernels_.run(p.shape, a, config_);
        }
      }
      begin = stop;
    }
  }

  void run_panels(const RunContext& ctx, const Phase& p) const {
    // Panels of all groups in a row; a thread's share may begin inside a group.
    int64_t begin, end;
    const int V = kernels_.lanes;
    ctx.part(static_cast<int64_t>(groups_) * out_blocks_, begin, end, config_.panel);
    if (groups_ > 1) ctx.part(groups_, begin, end), begin *= out_blocks_, end *= out_blocks_;
    const int total = pixels(p);
    for (int n = 0; n < images(); ++n) {
      for (int pixel = 0; pixel < total; pixel += pixel_block_) {
        for (int64_t block = begin; block < end;) {
          const int g = static_cast<int>(block / out_blocks_);
          const int64_t stop = std::min(end, static_cast<int64_t>(g + 1) * out_blocks_);
          DirectArgs a = args(ctx, p, n, g);
          a.weights = p.weights.data() + block * V * p.shape.steps * p.shape.lanes;
          a.block0 = static_cast<int>(block);
          a.blocks = static_cast<int>(stop - block);
          a.pixel0 = pixel;
          a.pixel1 = std::min(total, pixel + pixel_block_);
          kernels_.run(p.shape, a, config_);
          block = stop;
        }
      }
    }
  }

  // Panels of 16-bit weights, a piece that fits L1 at a time: expand it, then let every pixel use it.
  void run_unpacking(const RunContext& ctx, const Phase& p) const {
    const int V = kernels_.lanes, lanes = p.shape.lanes;
    float* piece = ctx.scratch + static_cast<size_t>(ctx.thread) * kPiece;
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(groups_) * out_blocks_, begin, end, config_.panel);
    if (groups_ > 1) ctx.part(groups_, begin, end), begin *= out_blocks_, end *= out_blocks_;
    for (int64_t block = begin; block < end;) {
      const int g = static_cast<int>(block / out_blocks_);
      const int vectors = panel_width(config_.panel, static_cast<int>((g + 1) * out_blocks_ - block));
      const int width = vectors * V, steps = std::max(1, kPiece / (lanes * width));
      DirectShape shape = p.shape;
      shape.step_block = steps;
      for (int step = 0; step < shape.steps; step += steps) {
        const int last = std::min(step + steps, shape.steps);
        p.rounded.expand(unpack_, static_cast<size_t>(block * V), vectors, step * lanes, last * lanes, piece);
        for (int n = 0; n < images(); ++n) {
          DirectArgs a = args(ctx, p, n, g);
          a.weights = piece;
          a.block0 = static_cast<int>(block);
          a.blocks = vectors;
          a.pixel1 = pixels(p);
          a.step0 = step;
          a.step1 = last;
          kernels_.run(shape, a, config_);
        }
      }
      block += vectors;
    }
  }

  static constexpr int kPiece = 4096;  // floats: half of a 32 KiB L1

  Tensor in_, residual_;
  const DirectKernels& kernels_;
  const UnpackKernels& unpack_;
  std::vector<Phase> phases_;
  Epilogue epilogue_;
  DirectConfig config_;
  int pixel_block_ = 1, groups_ = 1, in_blocks_ = 1, out_blocks_ = 1;
  bool split_panels_ = false, fold_batch_ = false, i16_ = false;
};

}  // namespace

// conv2d, conv1d (h = 1), linear (1 x 1 on a map of one pixel), flatten + linear (kernel = map).
std::unique_ptr<Step> make_direct(const StepSpec& spec) {
  const auto& stride = spec.list("stride", 2);
  const auto& padding = spec.list("padding", 4);
  const auto& dilation = spec.list("dilation", 2);
  const FloatArray& w = spec.weight("weight");
  Phase p;
  p.out_h = spec.out.h;
  p.out_w = spec.out.w;
  p.in_step_y = static_cast<int>(stride[0]);
  p.in_step_x = static_cast<int>(stride[1]);
  for (int ky = 0; ky < w.shape.at(2); ++ky) {
    for (int kx = 0; kx < w.shape.at(3); ++kx) {
      p.taps.push_back(
          {static_cast<int>(ky * dilation[0] - padding[0]), static_cast<int>(kx * dilation[1] - padding[1]), ky, kx});
    }
  }
  std::vector<Phase> phases;
  phases.push_back(std::move(p));
  return std::make_unique<DirectStep>(spec, std::move(phases), false);
}

// out[oy] = sum over ky with (oy + pad - ky * dilation) divisible by the stride of in[(oy + pad - ky * dilation) /
// stride].
std::unique_ptr<Step> make_transposed(const StepSpec& spec) {
  const auto& stride = spec.list("stride", 2);
  const auto& padding = spec.list("padding", 2);
  const auto& dilation = spec.list("dilation", 2);
  const FloatArray& w = spec.weight("weight");
  std::vector<Phase> phases;
  for (int py = 0; py < stride[0] && py < spec.out.h; ++py) {
    for (int px = 0; px < stride[1] && px < spec.out.w; ++px) {
      Phase p;
      p.out_y = py;
      p.out_x = px;
      p.out_step_y = static_cast<int>(stride[0]);
      p.out_step_x = static_cast<int>(stride[1]);
      p.out_h = static_cast<int>((spec.out.h - py + stride[0] - 1) / stride[0]);
      p.out_w = static_cast<int>((spec.out.w - px + stride[1] - 1) / stride[1]);
      for (int ky = 0; ky < w.shape.at(2); ++ky) {
        const int64_t y = py + padding[0] - ky * dilation[0];
        if (y % stride[0] != 0) continue;
        for (int kx = 0; kx < w.shape.at(3); ++kx) {
          const int64_t x = px + padding[1] - kx * dilation[1];
          if (x % stride[1] != 0) continue;
          p.taps.push_back({static_cast<int>(y / stride[0]), static_cast<int>(x / stride[1]), ky, kx});
        }
      }
      phases.push_back(std::move(p));
    }
  }
  return std::make_unique<DirectStep>(spec, std::move(phases), true);
}

}  // namespace fastcnn
