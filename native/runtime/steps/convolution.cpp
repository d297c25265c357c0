// Convolution and transposed convolution on the direct kernels.
//
// Both become phases: stride-1 walks over an output grid with a list of taps. A convolution is one phase; a transposed
// convolution with stride s is s*s phases, each writing every s-th output row and column.
//
// weights "i16": kept in 16 bits and expanded a piece at a time, for layers that wait for their weights.
// weights "bf16": input and weights are rounded to bf16. The input that a block of pixels needs is rounded into scratch
// memory, dense, when its turn comes; maps stay fp32, so that no error travels but the products' own.
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

enum class Weights { kF32, kI16, kBf16 };

Weights parse_weights(const StepSpec& spec) {
  const std::string word = spec.word("weights", "f32");
  if (word == "i16") return Weights::kI16;
  return word == "bf16" ? Weights::kBf16 : Weights::kF32;
}

// Along one axis: the input that the taps of a pixel reach, and a copy of it without what no tap reaches.
struct Reach {
  int first = 0, size = 1;  // from the position of the pixel
  int step = 1;             // of the input, from pixel to pixel
  int dense_step = 1;       // of the copy

  Reach() = default;
  Reach(int step_between, int least, int most)
      : first(least), size(most - least + 1), step(step_between), dense_step(std::min(step, size)) {}
  int count(int pixels) const { return (pixels - 1) * dense_step + size; }
  // Input position of entry i of a copy that begins with that pixel's reach.
  int source(int pixel, int i) const { return (pixel + i / dense_step) * step + first + i % dense_step; }
};

struct Phase {
  int out_h = 0, out_w = 0;  // grid
  int in_step_y = 1, in_step_x = 1;
  int out_step_y = 1, out_step_x = 1, out_y = 0, out_x = 0;
  std::vector<Tap> taps;
  // Filled by pack():
  DirectShape shape;
  std::vector<int32_t> offsets;
  Buffer weights;          // [panel][step][lane][panel width]; bf16: [panel][step][pair of lanes][panel width][2]
  RoundedWeights rounded;  // the former in 16 bits
  Reach rows, columns;     // bf16, as what follows: the rounded input of a block of pixels
  ptrdiff_t dense_row = 0, dense_plane = 0;
  const Bf16* weights_bf16() const { return reinterpret_cast<const Bf16*>(weights.data()); }
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
        phases_(std::move(phases)),
        transposed_(transposed) {
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
    weights_ = parse_weights(spec);
    if (weights_ == Weights::kBf16 && (!in_.blocked || transposed || compensated)) {
      throw std::invalid_argument("direct: bf16 goes with a blocked input and plain sums");
    }
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
    const char* name = weights_ == Weights::kI16    ? "direct_i16_"
                       : weights_ == Weights::kBf16 ? "direct_bf16_"
                                                    : "direct_f32_";
    return name + std::to_string(config_.tile) + "x" + std::to_string(config_.panel * kernels_.lanes) + "_" +
           isa_name(kernels_.isa);
  }

  size_t weight_bytes() const override {
    size_t bytes = epilogue_.bytes();
    for (const Phase& p : phases_) {
      bytes += p.weights.size() * sizeof(float) + p.rounded.bytes() + p.offsets.size() * sizeof(int32_t);
    }
    return bytes;
  }

  size_t scratch_floats(int threads) const override {
    const size_t own = weights_ == Weights::kI16    ? unpacking_floats()
                       : weights_ == Weights::kBf16 ? bf16_floats(phases_.front())
                                                    : 0;
    return static_cast<size_t>(threads) * own;
  }

  Region opening(int thread, int threads) const override {
    int64_t block = 0, stop = static_cast<int64_t>(groups_) * out_blocks_;
    if (split_panels_ || weights_ == Weights::kI16) share(thread, threads, block, stop);
    if (block >= stop) return {};
    const Phase& p = phases_.front();
    const int V = kernels_.lanes;
    const ptrdiff_t rows = static_cast<ptrdiff_t>(p.shape.steps) * p.shape.lanes;
    const ptrdiff_t count = rows * std::min<int64_t>(config_.panel, stop - block) * V;
    if (weights_ == Weights::kI16) return {p.rounded.codes(static_cast<size_t>(block * V)), 2 * count};
    if (weights_ == Weights::kBf16) return {p.weights_bf16() + rows * block * V, 2 * count};
    return {p.weights.data() + rows * block * V, 4 * count};
  }

  std::optional<RowReach> row_reach() const override {
    if (transposed_ || fold_batch_ || weights_ == Weights::kI16) return std::nullopt;
    const Phase& p = phases_.front();
    return RowReach{p.in_step_y, p.taps.front().dy, p.taps.back().dy - p.taps.front().dy + 1};
  }

  void rows(const RunContext& ctx, int n, int row0, int row1) const override {
    const Phase& p = phases_.front();
    run_range(ctx, p, n, static_cast<int64_t>(row0) * p.out_w, static_cast<int64_t>(row1) * p.out_w, false);
  }

  void run(const RunContext& ctx) const override {
    for (const Phase& phase : phases_) {
      if (weights_ == Weights::kI16) {
        if (one_pixel(phase)) {
          run_dots(ctx, phase);
        } else {
          run_unpacking(ctx, phase);
        }
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
    if (fold_batch_ && weights_ == Weights::kBf16) {
      throw std::invalid_argument("direct: bf16 is for maps of more than one pixel");
    }
    if (fold_batch_) {  // a map of one pixel: images are the pixels
      s.out_w = in_.n;
      s.in_pixel = in_.image;
      s.out_pixel = out.image;
      s.res_pixel = residual_.image;
    }
    std::vector<Tap> taps = p.taps;
    const bool empty = taps.empty();  // a phase no tap falls into: bias only
    if (empty) taps.push_back({0, 0, 0, 0});
    const bool dense = weights_ == Weights::kBf16;
    if (dense) {
      p.rows = Reach(p.in_step_y, taps.front().dy, taps.back().dy);
      p.columns = Reach(p.in_step_x, taps.front().dx, taps.back().dx);
      // A block of pixels touches that many rows, or lies in the only one.
      const int high = std::min(p.out_h, (pixel_block_ - 1) / p.out_w + 2);
      p.dense_row =
          static_cast<ptrdiff_t>(p.columns.count(p.out_h == 1 ? std::min(p.out_w, pixel_block_) : p.out_w)) * V;
      p.dense_plane = p.rows.count(high) * p.dense_row;
      s.in_row = p.rows.dense_step * p.dense_row;
      s.in_pixel = static_cast<ptrdiff_t>(p.columns.dense_step) * V;
    }
    for (int cb = 0; cb < in_blocks_; ++cb) {
      for (const Tap& tap : taps) {
        const ptrdiff_t offset =
            dense ? cb * p.dense_plane + (tap.dy - p.rows.first) * p.dense_row + (tap.dx - p.columns.first) * V
                  : cb * in_.plane + tap.dy * in_.row + tap.dx * in_.pixel;
        if (offset != static_cast<int32_t>(offset)) throw std::invalid_argument("direct: the input map is too large");
        p.offsets.push_back(static_cast<int32_t>(offset));
      }
    }
    s.steps = static_cast<int>(p.offsets.size());
    s.step_offset = p.offsets.data();
    const size_t rows = static_cast<size_t>(s.steps) * lanes, columns = static_cast<size_t>(groups_) * out_blocks_ * V;
    Buffer panel;
    if (weights_ == Weights::kI16) p.rounded = RoundedWeights(rows, columns);
    if (weights_ == Weights::kBf16) {
      p.weights = Buffer(rows * columns / 2);
    }
    const bool by_panel = weights_ != Weights::kF32;
    if (by_panel) {
      panel = Buffer(rows * config_.panel * V);
    } else {
      p.weights = Buffer(rows * columns);
    }
    size_t column = 0;
    for (int g = 0; g < groups_; ++g) {
      for (int b = 0; b < out_blocks_;) {
        const int width = panel_width(config_.panel, out_blocks_ - b) * V;
        float* to = by_panel ? panel.data() : p.weights.data() + rows * column;
        const float* filled = to;
        for (int cb = 0; cb < in_blocks_; ++cb) {
          for (const Tap& tap : taps) {
            for (int l = 0; l < lanes; ++l, to += width) {
              const int c = (g * in_blocks_ + cb) * lanes + l, first = (g * out_blocks_ + b) * V;
              std::fill_n(to, width, 0.0f);
              if (empty || c >= in_c) continue;
              // Filters of the channel's group, and how far the weights of one and the next lie apart.
              const int begin = c / in_per_group * out_per_group, end = begin + out_per_group;
              const int64_t apart = transposed ? kh * kw : in_per_group * kh * kw;
              const int64_t filter = transposed ? static_cast<int64_t>(c) * out_per_group
                                                : static_cast<int64_t>(begin) * in_per_group + c % in_per_group;
              const float* const from = w.data + (filter * kh + tap.ky) * kw + tap.kx;
              for (int f = std::max(first, begin); f < std::min(first + width, end); ++f) {
                to[f - first] = from[(f - begin) * apart];
              }
            }
          }
        }
        if (weights_ == Weights::kI16) p.rounded.round(filled, column, static_cast<size_t>(width));
        if (weights_ == Weights::kBf16) {
          Bf16* pair = const_cast<Bf16*>(p.weights_bf16()) + rows * column;
          for (size_t row = 0; row < rows; row += 2, filled += 2 * width) {
            for (int k = 0; k < width; ++k) {
              *pair++ = round_bf16(filled[k]);
              *pair++ = round_bf16(filled[k + width]);
            }
          }
        }
        b += width / V;
        column += static_cast<size_t>(width);
      }
    }
  }

  const float* input(const RunContext& ctx, int n, int group) const {
    return ctx.at(in_) + n * in_.image + group * in_blocks_ * in_.plane;
  }

  // All but input and weights, for the output channel blocks `block` ... `stop`.
  template <class T>
  DirectArgsOf<T> args(const RunContext& ctx, const Phase& p, int n, int64_t block, int64_t stop) const {
    DirectArgsOf<T> a;
    a.out = ctx.at(out) + n * out.image + p.out_y * out.row + p.out_x * out.pixel;
    if (epilogue_.has_residual) {
      a.residual = ctx.at(residual_) + n * residual_.image + p.out_y * residual_.row + p.out_x * residual_.pixel;
    }
    a.bias = epilogue_.bias.size() != 0 ? epilogue_.bias.data() : nullptr;
    a.block0 = static_cast<int>(block);
    a.blocks = static_cast<int>(stop - block);
    return a;
  }

  // Pixels first ... last of image n, output channel blocks `block` ... `stop`, which lie in one group.
  void run_block(const RunContext& ctx, const Phase& p, int n, int64_t first, int64_t last, int64_t block, int64_t stop,
                 Region next) const {
    const int group = static_cast<int>(block / out_blocks_);
    const ptrdiff_t weight = block * kernels_.lanes * p.shape.steps * p.shape.lanes;
    if (weights_ == Weights::kBf16) {
      DirectArgsBf16 a = args<Bf16>(ctx, p, n, block, stop);
      a.pixel0 = static_cast<int>(first);
      a.pixel1 = static_cast<int>(last);
      a.weights = p.weights_bf16() + weight;
      a.next = next;
      round_input(ctx, p, n, group, a);
      kernels_.run_bf16(p.shape, a, config_);
    } else {
      DirectArgs a = args<float>(ctx, p, n, block, stop);
      a.pixel0 = static_cast<int>(first);
      a.pixel1 = static_cast<int>(last);
      a.in = input(ctx, n, group);
      a.weights = p.weights.data() + weight;
      a.next = next;
      kernels_.run(p.shape, a, config_);
    }
  }

  // What the pixels of `a` read, rounded, in this thread's scratch; makes `a` read it there.
  void round_input(const RunContext& ctx, const Phase& p, int n, int group, DirectArgsBf16& a) const {
    const int V = kernels_.lanes, out_w = p.shape.out_w;
    const int y0 = a.pixel0 / out_w, y1 = (a.pixel1 - 1) / out_w;
    const int x0 = p.out_h == 1 ? a.pixel0 : 0, x1 = p.out_h == 1 ? a.pixel1 : out_w;
    const int rows = p.rows.count(y1 - y0 + 1), columns = p.columns.count(x1 - x0);
    Bf16* copy = reinterpret_cast<Bf16*>(ctx.scratch + static_cast<size_t>(ctx.thread) * bf16_floats(p));
    const float* map = input(ctx, n, group);
    for (int cb = 0; cb < in_blocks_; ++cb, map += in_.plane) {
      for (int r = 0; r < rows; ++r) {
        const float* from = map + p.rows.source(y0, r) * in_.row;
        Bf16* to = copy + cb * p.dense_plane + r * p.dense_row;
        if (p.columns.size >= p.columns.step) {
          kernels_.to_bf16(from + p.columns.source(x0, 0) * in_.pixel, in_.pixel, columns, to, V);
          continue;
        }
        for (int k = 0; k < p.columns.size; ++k) {  // of every pixel its k-th column
          kernels_.to_bf16(from + p.columns.source(x0, k) * in_.pixel, p.columns.step * in_.pixel, x1 - x0, to + k * V,
                           p.columns.size * V);
        }
      }
    }
    a.in = copy - y0 * p.shape.in_row - x0 * p.shape.in_pixel;
  }

  // Scratch of one thread.
  size_t bf16_floats(const Phase& p) const { return (in_blocks_ * static_cast<size_t>(p.dense_plane) + 1) / 2; }

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
      run_range(ctx, p, n, begin - n * per_image, stop - n * per_image, stop == end);
      begin = stop;
    }
  }

  // Pixels first ... last of image n, all output channels; `ends`: the thread's last, then it fetches what follows.
  void run_range(const RunContext& ctx, const Phase& p, int n, int64_t first, int64_t last, bool ends) const {
    for (; first < last; first += pixel_block_) {
      const int64_t stop = std::min(last, first + pixel_block_);
      for (int64_t g = 0; g < groups_; ++g) {
        const bool last_one = ends && stop == last && g + 1 == groups_;
        run_block(ctx, p, n, first, stop, g * out_blocks_, (g + 1) * out_blocks_, last_one ? after(ctx) : Region{});
      }
    }
  }

  // A thread's output channel blocks: whole panels, or whole groups.
  void share(int thread, int threads, int64_t& begin, int64_t& end) const {
    if (groups_ > 1) {
      RunContext::part_of(thread, threads, groups_, begin, end, 1);
      begin *= out_blocks_, end *= out_blocks_;
    } else {
      RunContext::part_of(thread, threads, out_blocks_, begin, end, config_.panel);
    }
  }

  void run_panels(const RunContext& ctx, const Phase& p) const {
    // Panels of all groups in a row; a thread's share may begin inside a group.
    int64_t begin, end;
    share(ctx.thread, ctx.threads, begin, end);
    const int total = pixels(p);
    for (int n = 0; n < images(); ++n) {
      for (int pixel = 0; pixel < total; pixel += pixel_block_) {
        for (int64_t block = begin; block < end;) {
          const int64_t stop = std::min(end, (block / out_blocks_ + 1) * out_blocks_);
          const bool ends = stop == end && pixel + pixel_block_ >= total && n + 1 == images();
          run_block(ctx, p, n, pixel, std::min(total, pixel + pixel_block_), block, stop, ends ? after(ctx) : Region{});
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
    share(ctx.thread, ctx.threads, begin, end);
    for (int64_t block = begin; block < end;) {
      const int g = static_cast<int>(block / out_blocks_);
      const int vectors = panel_width(config_.panel, static_cast<int>((g + 1) * out_blocks_ - block));
      const int width = vectors * V, steps = std::max(1, kPiece / (lanes * width));
      DirectShape shape = p.shape;
      shape.step_block = steps;
      for (int step = 0; step < shape.steps; step += steps) {
        const int last = std::min(step + steps, shape.steps);
        p.rounded.expand(unpack_, static_cast<size_t>(block * V), vectors, step * lanes, last * lanes, piece);
        // Expanding has fetched a page of what follows, computing fetches the next: memory is never idle.
        const int16_t* following = p.rounded.codes(static_cast<size_t>(block * V)) + int64_t{last} * lanes * width;
        const Region next = {following + kUnpackAhead, kUnpackAhead * ptrdiff_t{sizeof(int16_t)}};
        for (int n = 0; n < images(); ++n) {
          DirectArgs a = args<float>(ctx, p, n, block, block + vectors);
          a.in = input(ctx, n, g);
          a.weights = piece;
          a.pixel1 = pixels(p);
          a.step0 = step;
          a.step1 = last;
          if (n == 0) a.next = next;
          kernels_.run(shape, a, config_);
        }
      }
      block += vectors;
    }
  }

  // The same for a single pixel: every weight serves once, so it is expanded in a register.
  void run_dots(const RunContext& ctx, const Phase& p) const {
    const int V = kernels_.lanes, lanes = p.shape.lanes, rows = p.shape.steps * lanes;
    float* const x = ctx.scratch + static_cast<size_t>(ctx.thread) * unpacking_floats();
    int64_t begin, end;
    share(ctx.thread, ctx.threads, begin, end);
    for (int64_t block = begin, filled = -1; block < end;) {
      const int g = static_cast<int>(block / out_blocks_);
      const int vectors = panel_width(config_.panel, static_cast<int>((g + 1) * out_blocks_ - block));
      if (g != filled) {
        const float* in = input(ctx, 0, g);
        for (int step = 0; step < p.shape.steps; ++step) {
          std::copy_n(in + p.shape.step_offset[step], lanes, x + step * lanes);
        }
        filled = g;
      }
      DirectArgs a = args<float>(ctx, p, 0, block, block + vectors);
      alignas(64) float sums[8 * 16] = {};
      if (a.bias != nullptr) std::copy_n(a.bias + block * V, vectors * V, sums);
      const size_t column = static_cast<size_t>(block * V);
      unpack_.dot(p.rounded.codes(column), p.rounded.scales(column), x, rows, vectors, sums);
      for (int j = 0; j < vectors; ++j) std::copy_n(sums + j * V, V, a.out + (block + j) * p.shape.out_plane);
      // No products are left: what follows them.
      a.in = x;
      a.pixel1 = 1;
      a.step0 = a.step1 = p.shape.steps;
      kernels_.run(p.shape, a, config_);
      block += vectors;
    }
  }

  bool one_pixel(const Phase& p) const { return images() == 1 && pixels(p) == 1; }

  // Scratch of one thread: a piece of the weights, or all of the input.
  size_t unpacking_floats() const {
    size_t floats = 0;
    for (const Phase& p : phases_) {
      floats = std::max<size_t>(floats, one_pixel(p) ? static_cast<size_t>(p.shape.steps) * p.shape.lanes : kPiece);
    }
    return floats;
  }

  static constexpr int kPiece = 4096;  // floats: half of a 32 KiB L1

  Tensor in_, residual_;
  const DirectKernels& kernels_;
  const UnpackKernels& unpack_;
  std::vector<Phase> phases_;
  Epilogue epilogue_;
  DirectConfig config_;
  int pixel_block_ = 1, groups_ = 1, in_blocks_ = 1, out_blocks_ = 1;
  bool split_panels_ = false, fold_batch_ = false, transposed_ = false;
  Weights weights_ = Weights::kF32;
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
