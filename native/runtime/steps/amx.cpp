// Convolution on the tile registers of AMX (kernels/amx).
//
// A block of rows, or of whole small images, is copied and rounded to bf16, then every panel of weights goes over it.
// The copy holds the input apart by position modulo stride, so that the pixels of a row lie together for every tap:
// [pair of channel blocks][row phase][column phase][image][row][pixel][channels].
//
// Of a planar input (the picture) the copy is [row phase][row][column][channel]: the columns that a row of taps reaches
// follow each other there, and are multiplied together, kAmxChannels numbers at once. The last of them may reach
// further than the taps do, where the weights are zero: infinities and NaN in a picture spread that far.
//
// split "pixels": every thread has its own rows or images and its own copy.
// split "panels": threads copy shares of the input into one copy, wait, then take shares of the output channels; each
// core reads only half of the weights.
#include <algorithm>

#include "kernels/amx/amx.h"
#include "runtime/step.h"

namespace fastcnn {
namespace {

// Along one axis: the input positions that the taps of output position o reach: o * step + first, and size - 1 more.
struct Axis {
  int64_t first = 0, size = 1, step = 1;
  int64_t taps = 1, apart = 1;

  int64_t phases() const { return std::min(step, size); }
  // Whether a tap of the first `count` output positions reaches entry i, from the first one that any of them reaches.
  bool reached(int64_t i, int64_t count) const {
    for (int64_t k = 0; k < taps; ++k) {
      const int64_t from = i - k * apart;
      if (from >= 0 && from % step == 0 && from / step < count) return true;
    }
    return false;
  }
  // Entries of a phase beyond one for each output position.
  int64_t extra(int64_t phase) const { return (size - 1 - phase) / step; }
};

class AmxStep final : public Step {
 public:
  explicit AmxStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    const AmxKernels* kernels = amx_kernels(spec.isa);
    if (kernels == nullptr) throw std::invalid_argument(std::string("amx: not on ") + isa_name(spec.isa));
    kernels_ = kernels;
    out = spec.out;
    if (!out.blocked || spec.integer("groups") != 1) {
      throw std::invalid_argument("amx: needs a channel-blocked output and one group");
    }
    epilogue_ = parse_epilogue(spec, out.blocks, kV);
    if (epilogue_.has_residual) residual_ = spec.in.at(1);
    split_panels_ = spec.word("split", "pixels") == "panels";
    products_ = spec.word("products", "bf16x3");
    shape_.parts = products_ == "bf16x6" ? 3 : products_ == "bf16x3" ? 2 : 1;
    rows_ = static_cast<int>(std::min<int64_t>(spec.integer("rows"), out.h));
    images_ = static_cast<int>(std::min<int64_t>(spec.integer("images"), out.n));
    if (rows_ < 1 || images_ < 1 || (images_ > 1 && rows_ != out.h)) {
      throw std::invalid_argument("amx: rows or images of a block out of range");
    }
    const FloatArray& w = spec.weight("weight");
    const auto& stride = spec.list("stride", 2);
    const auto& padding = spec.list("padding", 4);
    const auto& dilation = spec.list("dilation", 2);
    for (size_t i = 0; i < 2; ++i) {
      Axis& axis = i == 0 ? down_ : across_;
      const int64_t taps = w.shape.at(2 + i);
      axis = {-padding[i], (taps - 1) * dilation[i] + 1, stride[i], taps, dilation[i]};
    }
    row_ = out.w + across_.extra(0);
    if (!in_.blocked) {  // what the last step of a pixel reads ends in its own row
      const int64_t steps = (across_.size * in_.c + kAmxChannels - 1) / kAmxChannels, pixel = across_.step * in_.c;
      row_ = out.w - 1 + (steps * kAmxChannels + pixel - 1) / pixel;
    }
    image_rows_ = rows_ + down_.extra(0);
    const int64_t plane = images_ * image_rows_ * row_;
    if (plane > INT32_MAX / 2) throw std::invalid_argument("amx: a block of the input is too large");
    AmxShape& s = shape_;
    if (in_.blocked) {
      pairs_ = (in_.blocks + 1) / 2;
      s.pixel = s.parts * kAmxChannels;
      s.part = kAmxChannels;
      plane_ = plane * s.pixel;
      for (int64_t pair = 0; pair < pairs_; ++pair) {
        for (int64_t y = 0; y < down_.size; y += dilation[0]) {
          for (int64_t x = 0; x < across_.size; x += dilation[1]) {
            const int64_t pixel = y / down_.step * row_ + x / across_.step;
            add_step(place(pair, y % down_.step, x % across_.step) + pixel * s.pixel);
          }
        }
      }
    } else {
      if (images_ > 1 || dilation[1] != 1) throw std::invalid_argument("amx: planes go image by image, undilated");
      s.pixel = across_.step * in_.c;
      const int64_t reached = across_.size * in_.c;
      plane_ = plane * s.pixel;
      s.part = down_.phases() * plane_ + kAmxPixels * s.pixel + kAmxChannels;
      for (int64_t y = 0; y < down_.size; y += dilation[0]) {
        for (int64_t first = 0; first < reached; first += kAmxChannels) {
          add_step(place(0, y % down_.step, 0) + y / down_.step * row_ * s.pixel + first);
        }
      }
    }
    pack(w);
    s.steps = static_cast<int>(offsets_.size());
    s.step_offset = offsets_.data();
    s.row = static_cast<int>(row_);
    s.out_w = out.w;
    s.out_image = out.image, s.out_row = out.row, s.out_pixel = out.pixel, s.out_plane = out.plane;
    s.res_image = residual_.image, s.res_row = residual_.row, s.res_pixel = residual_.pixel;
    s.res_plane = residual_.plane;
    s.act = epilogue_.act;
    s.act_before_residual = epilogue_.act_before_residual;
  }

  std::string kernel() const override { return "amx_" + products_ + "_32x32_" + isa_name(kernels_->isa); }
  size_t weight_bytes() const override {
    return weights_.size() * sizeof(float) + offsets_.size() * sizeof(int32_t) + epilogue_.bytes();
  }
  size_t scratch_floats(int threads) const override {
    return copy_floats() * static_cast<size_t>(split_panels_ ? 1 : threads);
  }

  Region opening(int thread, int threads) const override {
    int64_t block = 0, stop = out.blocks;
    if (split_panels_) RunContext::part_of(thread, threads, out.blocks, block, stop, kAmxPanel);
    if (block >= stop) return {};
    const int64_t size = std::min<int64_t>(kAmxPanel, stop - block) * block_numbers();
    return {weights() + block * block_numbers(), size * ptrdiff_t{sizeof(Bf16)}};
  }

  std::optional<RowReach> row_reach() const override {
    return RowReach{static_cast<int>(down_.step), static_cast<int>(down_.first), static_cast<int>(down_.size)};
  }

  void rows(const RunContext& ctx, int n, int row0, int row1) const override { run_rows(ctx, n, row0, row1, false); }

  void run(const RunContext& ctx) const override {
    if (split_panels_) {
      run_panels(ctx);
    } else if (images_ > 1) {
      int64_t begin, end;
      ctx.part(out.n, begin, end);
      for (int64_t n = begin; n < end; n += images_) {
        const int64_t stop = std::min<int64_t>(end, n + images_);
        run_block(ctx, {static_cast<int>(n), static_cast<int>(stop), 0, out.h}, stop == end);
      }
    } else {
      int64_t begin, end;
      ctx.part(static_cast<int64_t>(out.n) * out.h, begin, end, out.n % ctx.threads == 0 ? out.h : 1);
      while (begin < end) {
        const int64_t n = begin / out.h, stop = std::min(end, (n + 1) * out.h);
        run_rows(ctx, static_cast<int>(n), static_cast<int>(begin - n * out.h), static_cast<int>(stop - n * out.h),
                 stop == end);
        begin = stop;
      }
    }
  }

 private:
  static constexpr int kV = 16;

  struct Block {
    int image0, image1, row0, row1;
  };

  // Numbers of the packed weights of one output channel block, in bf16.
  int64_t block_numbers() const { return static_cast<int64_t>(offsets_.size()) * shape_.parts * kAmxTile; }
  const Bf16* weights() const { return reinterpret_cast<const Bf16*>(weights_.data()); }

  void add_step(int64_t offset) {
    if (offset != static_cast<int32_t>(offset)) throw std::invalid_argument("amx: the input map is too large");
    offsets_.push_back(static_cast<int32_t>(offset));
  }

  // Where a plane of the copy begins.
  int64_t place(int64_t pair, int64_t phase_y, int64_t phase_x) const {
    return ((pair * down_.phases() + phase_y) * phases_x() + phase_x) * plane_;
  }
  int64_t phases_x() const { return in_.blocked ? across_.phases() : 1; }
  // Tiles may begin at the last pixel.
  size_t copy_floats() const {
    const int64_t planes = pairs_ * down_.phases() * phases_x() * plane_ + kAmxPixels * shape_.pixel + kAmxChannels;
    return static_cast<size_t>((planes * (in_.blocked ? 1 : shape_.parts) + 1) / 2);
  }

  void pack(const FloatArray& w) {
    const int64_t height = w.shape[2], width = w.shape[3], taps = height * width, parts = shape_.parts;
    const int64_t apart = in_.c * taps, in_row = width * in_.c;
    weights_ = Buffer(static_cast<size_t>(block_numbers() * out.blocks / 2));
    for (int64_t block = 0; block < out.blocks; ++block) {
      const int64_t panel = block / kAmxPanel * kAmxPanel;
      const int64_t tile = std::min<int64_t>(kAmxPanel, out.blocks - panel) * kAmxTile;  // of one part of a step
      const float* const from = w.data + block * kV * apart;
      const int filters = static_cast<int>(std::min<int64_t>(kV, out.c - block * kV));
      Bf16* to = const_cast<Bf16*>(weights()) + panel * block_numbers() + (block - panel) * kAmxTile;
      // Of a step's numbers, those before `count`; `at` finds one by where it is among them.
      const auto add_step = [&](int64_t count, const auto& at) {
        for (int64_t k = 0; k < std::min<int64_t>(count, kAmxChannels); k += 2) {
          kernels_->weights(at(k), k + 1 < count ? at(k + 1) : nullptr, apart, filters, shape_.parts, to + k * kV,
                            tile);
        }
        to += parts * tile;
      };
      if (in_.blocked) {
        for (int64_t c = 0; c < in_.c; c += kAmxChannels) {
          for (int64_t tap = 0; tap < taps; ++tap) {
            add_step(in_.c - c, [&](int64_t k) { return from + (c + k) * taps + tap; });
          }
        }
      } else {
        for (int64_t y = 0; y < height; ++y) {
          for (int64_t first = 0; first < in_row; first += kAmxChannels) {
            add_step(in_row - first, [&](int64_t k) {
              const int64_t x = (first + k) / in_.c, c = (first + k) % in_.c;
              return from + (c * height + y) * width + x;
            });
          }
        }
      }
    }
  }

  // Rounds input rows begin ... end of the block, numbered [pair][image][row that the taps reach], into the copy.
  void round_input(const RunContext& ctx, const Block& b, Bf16* copy, int64_t begin, int64_t end) const {
    const int64_t images = b.image1 - b.image0, rows = b.row1 - b.row0, reached = reached_rows(rows);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t r = i % reached, image = i / reached % images, pair = i / reached / images;
      if (!down_.reached(r, rows)) continue;
      const int64_t phase_y = r % down_.step, row = r / down_.step;
      const float* from = ctx.at(in_) + (b.image0 + image) * in_.image + 2 * pair * in_.plane +
                          (b.row0 * down_.step + r + down_.first) * in_.row;
      if (!in_.blocked) {
        interleave(from + across_.first, copy + place(0, phase_y, 0) + row * row_ * shape_.pixel);
        continue;
      }
      for (int64_t phase_x = 0; phase_x < across_.phases(); ++phase_x) {
        const float* at = from + (across_.first + phase_x) * in_.pixel;
        Bf16* const to = copy + place(pair, phase_y, phase_x) + (image * image_rows_ + row) * row_ * shape_.pixel;
        kernels_->round(at, 2 * pair + 1 < in_.blocks ? at + in_.plane : nullptr, across_.step * in_.pixel,
                        static_cast<int>(out.w + across_.extra(phase_x)), shape_.parts, to);
      }
    }
  }

  // A row of a planar input, and zeros to the end of the row of the copy.
  void interleave(const float* from, Bf16* to) const {
    const int64_t pixels = (out.w - 1) * across_.step + across_.size, numbers = pixels * in_.c;
    kernels_->interleave(from, in_.plane, in_.c, static_cast<int>(pixels), shape_.parts, to, shape_.part);
    const size_t rest = static_cast<size_t>(row_ * shape_.pixel - numbers) * sizeof(Bf16);
    for (int i = 0; i < shape_.parts; ++i) std::memset(to + i * shape_.part + numbers, 0, rest);
  }
  int64_t reached_rows(int64_t rows) const { return (rows - 1) * down_.step + down_.size; }

  // Output channel blocks block0 ... block1 of a block that has been copied.
  void multiply(const RunContext& ctx, const Block& b, const Bf16* copy, int64_t block0, int64_t block1,
                Region next) const {
    AmxArgs a;
    a.in = copy;
    a.images = b.image1 - b.image0;
    a.rows = b.row1 - b.row0;
    a.image_rows = static_cast<int>(image_rows_);
    a.weights = weights() + block0 * block_numbers();
    a.bias = epilogue_.bias.size() != 0 ? epilogue_.bias.data() : nullptr;
    a.out = ctx.at(out) + b.image0 * out.image + b.row0 * out.row;
    if (epilogue_.has_residual) {
      a.residual = ctx.at(residual_) + b.image0 * residual_.image + b.row0 * residual_.row;
    }
    a.block0 = static_cast<int>(block0);
    a.blocks = static_cast<int>(block1 - block0);
    a.next = next;
    kernels_->run(shape_, a);
  }

  // By this thread alone; `ends`: its last block, then it fetches what follows.
  void run_block(const RunContext& ctx, const Block& b, bool ends) const {
    Bf16* copy = reinterpret_cast<Bf16*>(ctx.scratch + static_cast<size_t>(ctx.thread) * copy_floats());
    const int64_t rows = pairs_ * (b.image1 - b.image0) * reached_rows(b.row1 - b.row0);
    round_input(ctx, b, copy, 0, rows);
    multiply(ctx, b, copy, 0, out.blocks, ends ? after(ctx) : Region{});
  }

  // Blocks of equal height rather than full ones and a rest.
  void run_rows(const RunContext& ctx, int n, int row0, int row1, bool ends) const {
    const int blocks = (row1 - row0 + rows_ - 1) / rows_;
    const auto cut = [&](int k) { return row0 + static_cast<int>(static_cast<int64_t>(row1 - row0) * k / blocks); };
    for (int k = 0; k < blocks; ++k) run_block(ctx, {n, n + 1, cut(k), cut(k + 1)}, ends && k + 1 == blocks);
  }

  void run_panels(const RunContext& ctx) const {
    Bf16* copy = reinterpret_cast<Bf16*>(ctx.scratch);
    int64_t block0, block1;
    ctx.part(out.blocks, block0, block1, kAmxPanel);
    for (int n = 0; n < out.n; n += images_) {
      const int stop = std::min(out.n, n + images_);
      for (int row = 0; row < out.h; row += rows_) {
        const Block b = {n, stop, row, std::min(out.h, row + rows_)};
        int64_t begin, end;
        ctx.part(pairs_ * (stop - n) * reached_rows(b.row1 - b.row0), begin, end);
        round_input(ctx, b, copy, begin, end);
        ctx.sync();
        const bool ends = stop == out.n && b.row1 == out.h;
        if (block0 < block1) multiply(ctx, b, copy, block0, block1, ends ? after(ctx) : Region{});
        if (!ends) ctx.sync();  // the copy is about to be overwritten
      }
    }
  }

  Tensor in_, residual_;
  const AmxKernels* kernels_ = nullptr;
  Epilogue epilogue_;
  AmxShape shape_;
  Axis down_, across_;
  // Of the copy: pixels from row to row, rows from image to image, numbers from plane to plane.
  int64_t pairs_ = 1, row_ = 0, image_rows_ = 0, plane_ = 0;
  int rows_ = 1, images_ = 1;
  bool split_panels_ = false;
  std::string products_;
  std::vector<int32_t> offsets_;
  Buffer weights_;
};

}  // namespace

std::unique_ptr<Step> make_amx(const StepSpec& spec) { return std::make_unique<AmxStep>(spec); }

}  // namespace fastcnn
