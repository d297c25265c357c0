// Maps of signs: made from maps of floats, pooled, and multiplied by weights of +-1.
#include "kernels/bits/bits.h"

#include <algorithm>
#include <cstring>

#include "runtime/steps/row_step.h"

namespace fastcnn {
namespace {

const uint32_t* words(const float* p) { return reinterpret_cast<const uint32_t*>(p); }
uint32_t* words(float* p) { return reinterpret_cast<uint32_t*>(p); }

// Whole words of channels, so that kernels may read past the last one.
Buffer per_channel(const StepSpec& spec, const char* key, int channels, float rest) {
  Buffer buffer;
  if (!spec.has_weight(key)) return buffer;
  const FloatArray& w = spec.weight(key);
  if (w.size != static_cast<size_t>(channels)) {
    throw std::invalid_argument("step " + spec.op + ": '" + key + "' has not one number for each channel");
  }
  buffer = Buffer(static_cast<size_t>((channels + 31) / 32 * 32));
  std::fill(buffer.data(), buffer.data() + buffer.size(), rest);
  std::copy(w.data, w.data + w.size, buffer.data());
  return buffer;
}

// A blocked map to bits: -1 where scale * x + shift >= 0 does not hold; or to the planes of how many limits x reaches,
// whole words of channels for each.
class SignsStep final : public RowStep {
 public:
  explicit SignsStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(bits_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.blocked || !in_.floats() || !out.signs())
      throw std::invalid_argument("signs: makes bits of a blocked map");
    scale_ = per_channel(spec, "scale", out.c, 1.0f);
    shift_ = per_channel(spec, "shift", out.c, 0.0f);
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

// Sums of products of signs, to signs again by a limit for each channel, or to floats by a scale and an epilogue.
class SignConvStep final : public Step {
 public:
  explicit SignConvStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(bits_kernels(spec.isa)) {
    out = spec.out;
    const int V = kernels_.lanes;
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &padding = spec.list("padding", 4),
               &dilation = spec.list("dilation", 2);
    groups_ = static_cast<int>(spec.integer("groups", 1));
    shape_.in_planes = static_cast<int>(spec.integer("in_planes", 1));
    shape_.weight_planes = static_cast<int>(spec.integer("weight_planes", 1));
    const int in_planes = shape_.in_planes, weight_planes = shape_.weight_planes;
    if (in_planes < 1 || weight_planes < 1 || in_planes * weight_planes > 2 || (in_planes > 1 && groups_ > 1) ||
        static_cast<int>(in_.pixel) % in_planes != 0) {
      throw std::invalid_argument("sign_conv: takes two planes of inputs or of weights, of inputs in one group");
    }
    const FloatArray& w = spec.weight("weight");
    const int64_t taps = kernel[0] * kernel[1];
    if (!in_.signs() || !out.blocked || groups_ < 1 || in_.c % groups_ != 0 || out.c % groups_ != 0 ||
        (groups_ > 1 && (in_.c / groups_ % 32 != 0 || out.c / groups_ % 32 != 0))) {
      throw std::invalid_argument("sign_conv: needs bits, and whole words of channels in every group");
    }
    group_words_ = static_cast<int>(in_.pixel) / groups_ / in_planes;
    if (w.size != static_cast<size_t>(out.c * weight_planes * taps * group_words_)) {
      throw std::invalid_argument("sign_conv: the weight has not the words that channels and taps need");
    }
    // Whole words of output channels: the bits past the last channel are made too, and are clear.
    vectors_ = (out.c / groups_ + 31) / 32 * 32 / V;
    const int64_t run = weight_planes * taps * group_words_;
    weights_ = Buffer(static_cast<size_t>(groups_ * vectors_ * run * V));
    for (int64_t o = 0; o < out.c; ++o) {
      const int64_t group = o / (out.c / groups_), within = o % (out.c / groups_);
      float* to = weights_.data() + (group * vectors_ + within / V) * run * V + within % V;
      for (int64_t k = 0; k < run; ++k) std::memcpy(to + k * V, w.data + o * run + k, sizeof(float));
    }
    // Taps of a row that follow each other are one run.
    const bool joined = dilation[1] == 1 && groups_ == 1 && in_planes == 1;
    shape_.out_w = out.w;
    shape_.runs = static_cast<int>(kernel[0]);
    shape_.run_taps = joined ? 1 : static_cast<int>(kernel[1]);
    shape_.words = joined ? static_cast<int>(kernel[1]) * group_words_ : group_words_;
    shape_.in_run = dilation[0] * in_.row;
    shape_.in_tap = dilation[1] * in_.pixel;
    shape_.in_pixel = stride[1] * in_.pixel;
    shape_.in_plane = in_planes > 1 ? group_words_ : 0;
    shape_.length = static_cast<int>(spec.integer("length"));
    shape_.out_pixel = out.pixel;
    in_row_ = stride[0] * in_.row;
    start_ = -padding[0] * in_.row - padding[1] * in_.pixel;
    reach_ = {static_cast<int>(stride[0]), -static_cast<int>(padding[0]),
              static_cast<int>((kernel[0] - 1) * dilation[0] + 1)};
    const auto& tile = spec.list("tile", 2);
    tile_ = {static_cast<int>(tile[0]), static_cast<int>(tile[1])};
    if (!has_tile(kernels_.tiles, kernels_.tile_count, tile_.vectors, tile_.pixels)) {
      throw std::invalid_argument("sign_conv: there are no kernels for that tile");
    }
    if (out.signs()) {
      limits_ = per_channel(spec, "limits", out.c, 2e9f);
      if (limits_.size() == 0) throw std::invalid_argument("sign_conv: signs need limits");
      to_ints(limits_);
    } else {
      scale_ = per_channel(spec, "scale", out.c, 0.0f);
      epilogue_ = parse_epilogue(spec, vectors_ * groups_, V);
      if (epilogue_.has_residual) residual_ = spec.in.at(1);
      shape_.out_vector = out.plane;
      shape_.res_vector = residual_.plane;
      shape_.act = epilogue_.act;
      shape_.act_before_residual = epilogue_.act_before_residual;
    }
    if (spec.has_weight("corrections")) read_corrections(spec);
  }

  std::string kernel() const override {
    return std::string("sign_conv_") + (out.signs() ? "bits_" : "f32_") + std::to_string(tile_.vectors) + "x" +
           std::to_string(tile_.pixels) + "_" + isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override {
    return (weights_.size() + limits_.size() + scale_.size() + corrections_.size()) * sizeof(float) + epilogue_.bytes();
  }
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
  static void to_ints(Buffer& buffer) {
    for (size_t i = 0; i < buffer.size(); ++i) {
      const int32_t value = static_cast<int32_t>(std::min(2e9f, std::max(-2e9f, buffer.data()[i])));
      std::memcpy(buffer.data() + i, &value, sizeof value);
    }
  }
  static const int32_t* ints(const Buffer& buffer) { return reinterpret_cast<const int32_t*>(buffer.data()); }

  void read_corrections(const StepSpec& spec) {
    const FloatArray& given = spec.weight("corrections");
    const auto &rows = spec.list("row_cases", static_cast<size_t>(out.h)),
               &columns = spec.list("column_cases", static_cast<size_t>(out.w));
    const int64_t padded = static_cast<int64_t>(vectors_) * groups_ * kernels_.lanes;
    if (given.shape.size() != 3 || given.shape[2] != out.c || given.shape[0] * given.shape[1] > UINT16_MAX) {
      throw std::invalid_argument("sign_conv: corrections are cases of rows by cases of columns by channels");
    }
    const auto within = [](const std::vector<int64_t>& cases, int64_t count) {
      return std::all_of(cases.begin(), cases.end(), [&](int64_t c) { return c >= 0 && c < count; });
    };
    if (!within(rows, given.shape[0]) || !within(columns, given.shape[1])) {
      throw std::invalid_argument("sign_conv: there is no such case of corrections");
    }
    const int64_t cases = given.shape[0] * given.shape[1];
    corrections_ = Buffer(static_cast<size_t>(cases * padded));
    for (int64_t i = 0; i < cases; ++i) {
      std::copy(given.data + i * out.c, given.data + (i + 1) * out.c, corrections_.data() + i * padded);
    }
    to_ints(corrections_);
    // Rows of one case share the cases of their columns; there is nothing to correct in rows where all are the first,
    // if that has nothing to correct.
    const bool always = std::any_of(given.data, given.data + out.c, [](float x) { return x != 0.0f; });
    row_cases_ = rows;
    cases_.resize(static_cast<size_t>(given.shape[0] * out.w));
    corrected_.resize(static_cast<size_t>(given.shape[0]));
    for (int64_t r = 0; r < given.shape[0]; ++r) {
      for (int64_t x = 0; x < out.w; ++x) {
        const int64_t c = r * given.shape[1] + columns[static_cast<size_t>(x)];
        cases_[static_cast<size_t>(r * out.w + x)] = static_cast<uint16_t>(c);
        corrected_[static_cast<size_t>(r)] |= c != 0 || always;
      }
    }
  }

  void row(const RunContext& ctx, int n, int y, int v, int count) const {
    const int V = kernels_.lanes, group = v / vectors_;
    BitsConvArgs a;
    a.in = words(static_cast<const float*>(ctx.at(in_))) + n * in_.image + y * in_row_ + start_ + group * group_words_;
    const ptrdiff_t vector =
        static_cast<ptrdiff_t>(shape_.weight_planes) * shape_.runs * shape_.run_taps * shape_.words * V;
    a.weights = words(static_cast<const float*>(weights_.data())) + v * vector;
    a.vectors = count;
    if (!corrected_.empty()) {
      const int64_t r = row_cases_[static_cast<size_t>(y)];
      if (corrected_[static_cast<size_t>(r)] != 0) {
        a.cases = cases_.data() + r * out.w;
        a.corrections = ints(corrections_) + static_cast<ptrdiff_t>(v) * V;
        a.corrections_case = static_cast<ptrdiff_t>(vectors_) * groups_ * V;
      }
    }
    float* to = ctx.at(out) + n * out.image + y * out.row;
    if (out.signs()) {
      a.limits = ints(limits_) + static_cast<ptrdiff_t>(v) * V;
      a.out_bits = reinterpret_cast<char*>(to) + v * V / 8;
      kernels_.conv_row(tile_, shape_, a);
      return;
    }
    // A blocked map may have fewer blocks than whole words of channels would fill.
    a.vectors = std::min(count, out.blocks - v);
    if (a.vectors <= 0) return;
    const auto of = [&](const Buffer& b) { return b.size() != 0 ? b.data() + static_cast<ptrdiff_t>(v) * V : nullptr; };
    a.scale = of(scale_);
    a.bias = of(epilogue_.bias);
    a.slope = of(epilogue_.slope);
    a.out = to + v * out.plane;
    if (epilogue_.has_residual) {
      a.residual = ctx.at(residual_) + n * residual_.image + y * residual_.row + v * residual_.plane;
    }
    kernels_.conv_row(tile_, shape_, a);
  }

  Tensor in_, residual_;
  const BitsKernels& kernels_;
  BitsConvShape shape_;
  RowTile tile_{};
  RowReach reach_;
  Epilogue epilogue_;
  Buffer weights_, limits_, scale_, corrections_;
  std::vector<int64_t> row_cases_;
  std::vector<uint16_t> cases_;
  std::vector<uint8_t> corrected_;
  ptrdiff_t in_row_ = 0, start_ = 0;
  int groups_ = 1, vectors_ = 0, group_words_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_signs(const StepSpec& spec) { return std::make_unique<SignsStep>(spec); }
std::unique_ptr<Step> make_sign_pool(const StepSpec& spec) { return std::make_unique<SignPoolStep>(spec); }
std::unique_ptr<Step> make_sign_conv(const StepSpec& spec) { return std::make_unique<SignConvStep>(spec); }

}  // namespace fastcnn
