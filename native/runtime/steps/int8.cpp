// Maps of bytes: made from maps of floats, pooled, multiplied by weights of 8 bits, and made floats again.
#include <algorithm>
#include <cstring>

#include "runtime/steps/int8_step.h"
#include "runtime/steps/row_step.h"

namespace fastcnn {
namespace {

// A map of floats to bytes: a blocked one, or planes of few channels.
class BytesStep final : public RowStep {
 public:
  explicit BytesStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(int8_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.floats() || !out.bytes() || in_.blocked == (out.lanes == 1)) {
      throw std::invalid_argument("bytes: makes bytes of a blocked map of floats, or of a plain one of few channels");
    }
    factor_ = static_cast<float>(spec.number("factor"));
    zero_ = zero_of(spec, "zero");
    high_ = static_cast<int>(spec.integer("high", 255));
    if (high_ < zero_ || high_ > 255) throw std::invalid_argument("bytes: levels go up to a byte, from zero on");
  }

  std::string kernel() const override { return std::string("bytes_") + isa_name(kernels_.isa); }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y) const override {
    const float* from = ctx.at(in_) + n * in_.image + y * in_.row;
    uint8_t* to = bytes(ctx.at(out) + n * out.image + y * out.row);
    if (in_.blocked) {
      kernels_.quantize_row(from, in_.plane, out.w, out.c, factor_, zero_, high_, to, out.pixel * 4);
    } else {
      kernels_.quantize_planes(from, in_.plane, out.w, out.c, factor_, zero_, high_, to);
    }
  }

  Tensor in_;
  const Int8Kernels& kernels_;
  float factor_;
  int zero_, high_;
};

class BytesToFloatsStep final : public RowStep {
 public:
  explicit BytesToFloatsStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(int8_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.bytes() || in_.lanes == 1 || !out.blocked || !out.floats()) {
      throw std::invalid_argument("bytes_to_floats: makes a blocked map of bytes of more than 4 channels");
    }
    step_ = static_cast<float>(spec.number("step"));
    zero_ = zero_of(spec, "zero");
  }

  std::string kernel() const override { return std::string("bytes_to_floats_") + isa_name(kernels_.isa); }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y) const override {
    kernels_.floats_row(bytes(static_cast<const float*>(ctx.at(in_))) + (n * in_.image + y * in_.row) * 4,
                        in_.pixel * 4, out.w, out.c, step_, zero_, ctx.at(out) + n * out.image + y * out.row,
                        out.plane);
  }

  Tensor in_;
  const Int8Kernels& kernels_;
  float step_;
  int zero_;
};

// The largest byte is that of the largest value; a window is clipped to the map.
class BytePoolStep final : public RowStep {
 public:
  explicit BytePoolStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(int8_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.bytes() || !out.bytes() || in_.lanes == 1 || in_.c != out.c) {
      throw std::invalid_argument("byte_pool: needs maps of bytes with the same channels, more than 4");
    }
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &padding = spec.list("padding", 4),
               &dilation = spec.list("dilation", 2);
    std::copy(kernel.begin(), kernel.end(), kernel_);
    std::copy(stride.begin(), stride.end(), stride_);
    std::copy(padding.begin(), padding.begin() + 2, padding_);
    std::copy(dilation.begin(), dilation.end(), dilation_);
  }

  std::string kernel() const override { return std::string("max_pool_u8_") + isa_name(kernels_.isa); }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y) const override {
    const uint8_t* from = bytes(static_cast<const float*>(ctx.at(in_))) + n * in_.image * 4;
    uint8_t* to = bytes(ctx.at(out) + n * out.image + y * out.row);
    int64_t row0, rows, column0, columns;
    window(0, y, in_.h, row0, rows);
    for (int64_t x = 0; x < out.w; ++x, to += out.pixel * 4) {
      window(1, x, in_.w, column0, columns);
      kernels_.largest(from + (row0 * in_.row + column0 * in_.pixel) * 4, dilation_[0] * in_.row * 4,
                       dilation_[1] * in_.pixel * 4, static_cast<int>(rows), static_cast<int>(columns),
                       static_cast<int>(out.pixel) * 4, to);
    }
  }

  // The taps of an output along an axis that lie in the map: the first, and how many.
  void window(int axis, int64_t output, int64_t size, int64_t& first, int64_t& count) const {
    const int64_t start = output * stride_[axis] - padding_[axis];
    int64_t skipped = 0;
    while (start + skipped * dilation_[axis] < 0) ++skipped;
    first = start + skipped * dilation_[axis];
    count = 0;
    while (skipped + count < kernel_[axis] && first + count * dilation_[axis] < size) ++count;
  }

  Tensor in_;
  const Int8Kernels& kernels_;
  int64_t kernel_[2], stride_[2], padding_[2], dilation_[2];
};

class Int8ConvStep final : public Int8Step {
 public:
  explicit Int8ConvStep(const StepSpec& spec) : Int8Step(spec) {
    const int V = kernels_.lanes;
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &dilation = spec.list("dilation", 2);
    const FloatArray& w = spec.weight("weight");
    const int64_t quads = kernel[0] * kernel[1] * in_.lanes;
    if (w.size != static_cast<size_t>(out.c * quads)) {
      throw std::invalid_argument("int8_conv: the weight has not the bytes that channels and taps need");
    }
    vector_bytes_ = static_cast<ptrdiff_t>(kernels_.packed_bytes(quads));
    weights_ = Buffer(static_cast<size_t>(vectors_ * vector_bytes_) / sizeof(float));
    std::vector<int8_t> lanes(static_cast<size_t>(quads * V * 4));
    for (int v = 0; v < vectors_; ++v) {
      for (int l = 0; l < V; ++l) {
        const int64_t o = static_cast<int64_t>(v) * V + l;
        for (int64_t q = 0; q < quads; ++q) {
          int8_t* to = lanes.data() + (q * V + l) * 4;
          std::memset(to, 0, 4);
          if (o < out.c) std::memcpy(to, w.data + o * quads + q, 4);
        }
      }
      kernels_.pack(lanes.data(), quads, reinterpret_cast<char*>(weights_.data()) + v * vector_bytes_);
    }
    // Taps of a row that follow each other are one run.
    const bool joined = dilation[1] == 1;
    shape_.out_w = out.w;
    shape_.runs = static_cast<int>(kernel[0]);
    shape_.run_taps = joined ? 1 : static_cast<int>(kernel[1]);
    shape_.quads = joined ? static_cast<int>(kernel[1]) * in_.lanes : in_.lanes;
    shape_.in_run = dilation[0] * in_.row * 4;
    shape_.in_tap = dilation[1] * in_.pixel * 4;
    shape_.in_pixel = stride[1] * in_.pixel * 4;
    const int64_t maps = 4 * (stride[0] * in_.row + out.row + residual_.row);
    block_ = weights_.size() * sizeof(float) <= kFewWeights ? 1 : std::max<int64_t>(1, kBlockBytes / maps);
    const auto& tile = spec.list("tile", 2);
    tile_ = {static_cast<int>(tile[0]), static_cast<int>(tile[1])};
    if (!has_tile(kernels_.tiles, kernels_.tile_count, tile_.vectors, tile_.pixels)) {
      throw std::invalid_argument("int8_conv: there are no kernels for that tile");
    }
  }

  std::string kernel() const override {
    return std::string("int8_conv_") + (out.bytes() ? "u8_" : "f32_") + std::to_string(tile_.vectors) + "x" +
           std::to_string(tile_.pixels) + "_" + isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override { return weights_.size() * sizeof(float) + numbers_bytes(); }

  void run(const RunContext& ctx) const override {
    const int64_t all = static_cast<int64_t>(out.n) * out.h, tiles = (vectors_ + tile_.vectors - 1) / tile_.vectors;
    int64_t row0 = 0, row1 = all, tile0 = 0, tile1 = tiles;
    // Rows, as the neighbouring steps split them; channels where there are too few.
    if (all >= 4 * ctx.threads || all % ctx.threads == 0) {
      ctx.part(all, row0, row1);
    } else {
      ctx.part(tiles, tile0, tile1);
    }
    // The weights of a tile of channels stay in the first cache for all rows of a block, the block in the second.
    for (int64_t first = row0; first < row1; first += block_) {
      const int64_t last = std::min(row1, first + block_);
      for (int64_t i = tile0; i < tile1; ++i) {
        const int v = static_cast<int>(i) * tile_.vectors;
        for (int64_t r = first; r < last; ++r) row(ctx, r / out.h, r % out.h, v);
      }
    }
  }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y, int v) const {
    Int8ConvArgs a;
    a.in = from(ctx, n, y);
    a.weights = reinterpret_cast<const char*>(weights_.data()) + v * vector_bytes_;
    a.vectors = destination(ctx, n, y, v, std::min(tile_.vectors, vectors_ - v), a.to);
    kernels_.conv_row(tile_, shape_, a);
  }

  // Of the first cache, for weights that stay there while rows pass; of the second, for rows.
  static constexpr size_t kFewWeights = 16 << 10;
  static constexpr int64_t kBlockBytes = 256 << 10;

  Int8ConvShape shape_;
  RowTile tile_{};
  int64_t block_ = 1;  // rows
  Buffer weights_;
  ptrdiff_t vector_bytes_ = 0;
};

class Int8DepthwiseStep final : public Int8Step {
 public:
  explicit Int8DepthwiseStep(const StepSpec& spec) : Int8Step(spec) {
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &dilation = spec.list("dilation", 2);
    const FloatArray& w = spec.weight("weight");
    const int padded = whole_groups(out.c);
    if (in_.lanes == 1 || in_.c != out.c) {
      throw std::invalid_argument("int8_depthwise: has as many inputs as outputs, more than 4");
    }
    if (w.size * 4 != static_cast<size_t>(kernel[0] * kernel[1] * padded)) {
      throw std::invalid_argument("int8_depthwise: the weight has not the bytes that channels and taps need");
    }
    shape_.out_w = out.w;
    shape_.rows = static_cast<int>(kernel[0]);
    shape_.columns = static_cast<int>(kernel[1]);
    weights_ = Buffer((kernels_.depthwise_bytes(shape_.rows, shape_.columns, padded) + 3) / sizeof(float));
    kernels_.depthwise_pack(reinterpret_cast<const int8_t*>(w.data), shape_.rows, shape_.columns, padded,
                            weights_.data());
    shape_.in_row = dilation[0] * in_.row * 4;
    shape_.in_column = dilation[1] * in_.pixel * 4;
    shape_.in_pixel = stride[1] * in_.pixel * 4;
    shape_.padded = padded;
  }

  std::string kernel() const override { return std::string("int8_depthwise_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override { return weights_.size() * sizeof(float) + numbers_bytes(); }

  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * out.h, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      Int8DepthwiseArgs a;
      a.in = from(ctx, i / out.h, i % out.h);
      a.weights = weights_.data();
      a.vectors = destination(ctx, i / out.h, i % out.h, 0, vectors_, a.to);
      kernels_.depthwise_row(shape_, a);
    }
  }

 private:
  Int8DepthwiseShape shape_;
  Buffer weights_;
};

}  // namespace

std::unique_ptr<Step> make_bytes(const StepSpec& spec) { return std::make_unique<BytesStep>(spec); }
std::unique_ptr<Step> make_bytes_to_floats(const StepSpec& spec) { return std::make_unique<BytesToFloatsStep>(spec); }
std::unique_ptr<Step> make_byte_pool(const StepSpec& spec) { return std::make_unique<BytePoolStep>(spec); }
std::unique_ptr<Step> make_int8_conv(const StepSpec& spec) { return std::make_unique<Int8ConvStep>(spec); }
std::unique_ptr<Step> make_int8_depthwise(const StepSpec& spec) { return std::make_unique<Int8DepthwiseStep>(spec); }

}  // namespace fastcnn
