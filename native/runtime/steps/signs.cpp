// Maps of signs: made from maps of floats, pooled, and multiplied by weights of +-1.
#include <algorithm>
#include <cstring>

#include "runtime/steps/row_step.h"
#include "runtime/steps/sign_step.h"

namespace fastcnn {
namespace {

// A blocked map to bits: -1 where scale * x + shift >= 0 does not hold; or to the planes of how many limits x reaches,
// whole words of channels for each.
class SignsStep final : public RowStep {
 public:
  explicit SignsStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(bits_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.blocked || !in_.floats() || !out.signs())
      throw std::invalid_argument("signs: makes bits of a blocked map");
    scale_ = per_word_of_channels(spec, "scale", out.c, 1.0f);
    shift_ = per_word_of_channels(spec, "shift", out.c, 0.0f);
    if (!spec.has_weight("limits")) return;
    const FloatArray& limits = spec.weight("limits");
    if (limits.size != 1 && limits.size != 3) throw std::invalid_argument("signs: limits are one or three");
    limits_.assign(limits.data, limits.data + limits.size);
    if (limits_.size() == 3 && out.pixel != 2 * ((in_.c + 31) / 32)) {
      throw std::invalid_argument("signs: two planes need whole words of channels each");
    }
  }

  std::string kernel() const override {
    return std::string(limits_.empty() ? "signs_" : "levels_") + isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override { return (scale_.size() + shift_.size() + limits_.size()) * sizeof(float); }
  std::optional<RowReach> row_reach() const override { return RowReach{}; }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y) const override {
    const float* from = ctx.at(in_) + n * in_.image + y * in_.row;
    uint32_t* to = words(ctx.at(out) + n * out.image + y * out.row);
    if (limits_.empty()) {
      kernels_.pack_row(from, in_.plane, out.w, out.c, scale_.size() != 0 ? scale_.data() : nullptr,
                        shift_.size() != 0 ? shift_.data() : nullptr, to, out.pixel);
    } else {
      kernels_.pack_levels(from, in_.plane, out.w, in_.c, limits_.data(), static_cast<int>(limits_.size()), to,
                           out.pixel, (in_.c + 31) / 32);
    }
  }

  Tensor in_;
  const BitsKernels& kernels_;
  Buffer scale_, shift_;
  std::vector<float> limits_;
};

// The largest of some signs is -1 where all of them are; a window is clipped to the map.
class SignPoolStep final : public RowStep {
 public:
  explicit SignPoolStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    if (!in_.signs() || !out.signs()) throw std::invalid_argument("sign_pool: needs maps of bits");
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &padding = spec.list("padding", 4),
               &dilation = spec.list("dilation", 2);
    std::copy(kernel.begin(), kernel.end(), kernel_);
    std::copy(stride.begin(), stride.end(), stride_);
    std::copy(padding.begin(), padding.begin() + 2, padding_);
    std::copy(dilation.begin(), dilation.end(), dilation_);
  }

  std::string kernel() const override { return "max_pool_bits"; }
  std::optional<RowReach> row_reach() const override {
    return RowReach{static_cast<int>(stride_[0]), -static_cast<int>(padding_[0]),
                    static_cast<int>((kernel_[0] - 1) * dilation_[0] + 1)};
  }

 private:
  void row(const RunContext& ctx, int64_t n, int64_t y) const override {
    const uint32_t* from = words(static_cast<const float*>(ctx.at(in_))) + n * in_.image;
    uint32_t* to = words(ctx.at(out) + n * out.image + y * out.row);
    const int64_t count = out.pixel;
    for (int64_t x = 0; x < out.w; ++x, to += count) {
      std::fill(to, to + count, ~0u);
      for (int64_t i = 0; i < kernel_[0]; ++i) {
        const int64_t row = y * stride_[0] - padding_[0] + i * dilation_[0];
        if (row < 0 || row >= in_.h) continue;
        for (int64_t j = 0; j < kernel_[1]; ++j) {
          const int64_t column = x * stride_[1] - padding_[1] + j * dilation_[1];
          if (column < 0 || column >= in_.w) continue;
          const uint32_t* p = from + row * in_.row + column * in_.pixel;
          for (int64_t k = 0; k < count; ++k) to[k] &= p[k];
        }
      }
    }
  }

  Tensor in_;
  int64_t kernel_[2], stride_[2], padding_[2], dilation_[2];
};

class SignConvStep final : public SignProductsStep {
 public:
  explicit SignConvStep(const StepSpec& spec) : SignProductsStep(spec) {
    const int V = kernels_.lanes;
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &dilation = spec.list("dilation", 2);
    const FloatArray& w = spec.weight("weight");
    const int64_t run = filter_words_;
    weights_ = Buffer(static_cast<size_t>(groups_ * vectors_ * run * V));
    for (int64_t o = 0; o < out.c; ++o) {
      const int64_t group = o / (out.c / groups_), within = o % (out.c / groups_);
      float* to = weights_.data() + (group * vectors_ + within / V) * run * V + within % V;
      for (int64_t k = 0; k < run; ++k) std::memcpy(to + k * V, w.data + o * run + k, sizeof(float));
    }
    // Taps of a row that follow each other are one run.
    const bool joined = dilation[1] == 1 && groups_ == 1 && shape_.in_planes == 1;
    shape_.out_w = out.w;
    shape_.runs = static_cast<int>(kernel[0]);
    shape_.run_taps = joined ? 1 : static_cast<int>(kernel[1]);
    shape_.words = joined ? static_cast<int>(kernel[1]) * group_words_ : group_words_;
    shape_.in_run = dilation[0] * in_.row;
    shape_.in_tap = dilation[1] * in_.pixel;
    shape_.in_pixel = stride[1] * in_.pixel;
    shape_.in_plane = shape_.in_planes > 1 ? group_words_ : 0;
    in_row_ = stride[0] * in_.row;
    const auto& tile = spec.list("tile", 2);
    tile_ = {static_cast<int>(tile[0]), static_cast<int>(tile[1])};
    if (!has_tile(kernels_.tiles, kernels_.tile_count, tile_.vectors, tile_.pixels)) {
      throw std::invalid_argument("sign_conv: there are no kernels for that tile");
    }
  }

  std::string kernel() const override {
    return std::string("sign_conv_") + (out.signs() ? "bits_" : "f32_") + std::to_string(tile_.vectors) + "x" +
           std::to_string(tile_.pixels) + "_" + isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override { return weights_.size() * sizeof(float) + numbers_bytes(); }
  std::optional<RowReach> row_reach() const override { return reach_; }

  void rows(const RunContext& ctx, int n, int row0, int row1) const override {
    for (int v = 0; v < groups_ * vectors_; v += tile_.vectors) {
      for (int y = row0; y < row1; ++y) row(ctx, n, y, v, tile_.vectors);
    }
  }

  void run(const RunContext& ctx) const override {
    const int64_t all = static_cast<int64_t>(out.n) * out.h, tiles = (vectors_ + tile_.vectors - 1) / tile_.vectors;
    int64_t row0 = 0, row1 = all, tile0 = 0, tile1 = groups_ * tiles;
    // Rows, as the neighbouring steps split them; channels where there are too few.
    if (all >= 4 * ctx.threads || all % ctx.threads == 0) {
      ctx.part(all, row0, row1);
    } else {
      ctx.part(tile1, tile0, tile1);
    }
    // The weights of a tile of channels stay in the first cache for all rows.
    for (int64_t i = tile0; i < tile1; ++i) {
      const int v = static_cast<int>(i / tiles * vectors_ + i % tiles * tile_.vectors);
      const int count = std::min<int>(tile_.vectors, vectors_ - static_cast<int>(i % tiles) * tile_.vectors);
      for (int64_t r = row0; r < row1; ++r) {
        row(ctx, static_cast<int>(r / out.h), static_cast<int>(r % out.h), v, count);
      }
    }
  }

 private:
  void row(const RunContext& ctx, int n, int y, int v, int count) const {
    const int V = kernels_.lanes, group = v / vectors_;
    BitsConvArgs a;
    a.in = words(static_cast<const float*>(ctx.at(in_))) + n * in_.image + y * in_row_ + start_ + group * group_words_;
    a.weights = words(static_cast<const float*>(weights_.data())) + static_cast<ptrdiff_t>(v) * filter_words_ * V;
    destination(ctx, n, y, v, count, a);
    a.cases = row_cases(y);
    if (a.cases == nullptr) a.corrections = nullptr;
    if (a.vectors > 0) kernels_.conv_row(tile_, shape_, a);
  }

  RowTile tile_{};
  Buffer weights_;
  ptrdiff_t in_row_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_signs(const StepSpec& spec) { return std::make_unique<SignsStep>(spec); }
std::unique_ptr<Step> make_sign_pool(const StepSpec& spec) { return std::make_unique<SignPoolStep>(spec); }
std::unique_ptr<Step> make_sign_conv(const StepSpec& spec) { return std::make_unique<SignConvStep>(spec); }

}  // namespace fastcnn
