// What steps share that multiply maps of signs (kernels/bits).
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/bits/bits.h"
#include "runtime/step.h"

namespace fastcnn {

inline const uint32_t* words(const float* p) { return reinterpret_cast<const uint32_t*>(p); }
inline uint32_t* words(float* p) { return reinterpret_cast<uint32_t*>(p); }

// Whole words of channels, so that kernels may read past the last one.
inline Buffer per_word_of_channels(const StepSpec& spec, const char* key, int channels, float rest) {
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

// Sums of products of signs, to signs again by a limit for each channel, or to floats by a scale and an epilogue.
class SignProductsStep : public Step {
 protected:
  explicit SignProductsStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(bits_kernels(spec.isa)) {
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
      throw std::invalid_argument("step " + spec.op + ": two planes of inputs or of weights, of inputs in one group");
    }
    if (!in_.signs() || !out.blocked || groups_ < 1 || in_.c % groups_ != 0 || out.c % groups_ != 0 ||
        (groups_ > 1 && (in_.c / groups_ % 32 != 0 || out.c / groups_ % 32 != 0))) {
      throw std::invalid_argument("step " + spec.op + ": needs bits, and whole words of channels in every group");
    }
    group_words_ = static_cast<int>(in_.pixel) / groups_ / in_planes;
    filter_words_ = weight_planes * kernel[0] * kernel[1] * group_words_;
    if (spec.weight("weight").size != static_cast<size_t>(out.c * filter_words_)) {
      throw std::invalid_argument("step " + spec.op + ": the weight has not the words that channels and taps need");
    }
    // Whole words of output channels: the bits past the last channel are made too, and are clear.
    vectors_ = (out.c / groups_ + 31) / 32 * 32 / V;
    shape_.length = static_cast<int>(spec.integer("length"));
    shape_.out_pixel = out.pixel;
    start_ = -padding[0] * in_.row - padding[1] * in_.pixel;
    reach_ = {static_cast<int>(stride[0]), -static_cast<int>(padding[0]),
              static_cast<int>((kernel[0] - 1) * dilation[0] + 1)};
    if (out.signs()) {
      limits_ = per_word_of_channels(spec, "limits", out.c, 2e9f);
      if (limits_.size() == 0) throw std::invalid_argument("step " + spec.op + ": signs need limits");
      to_ints(limits_);
    } else {
      scale_ = per_word_of_channels(spec, "scale", out.c, 0.0f);
      epilogue_ = parse_epilogue(spec, vectors_ * groups_, V);
      if (epilogue_.has_residual) residual_ = spec.in.at(1);
      shape_.out_vector = out.plane;
      shape_.res_vector = residual_.plane;
      shape_.act = epilogue_.act;
      shape_.act_before_residual = epilogue_.act_before_residual;
    }
    if (spec.has_weight("corrections")) read_corrections(spec);
  }

  size_t numbers_bytes() const {
    return (limits_.size() + scale_.size() + corrections_.size()) * sizeof(float) + epilogue_.bytes();
  }

  // Where vectors v ... v + count - 1 of a row go, and what is to be corrected in them, but for the cases.
  void destination(const RunContext& ctx, int n, int y, int v, int count, BitsConvArgs& a) const {
    const ptrdiff_t V = kernels_.lanes;
    a.vectors = count;
    if (!corrected_.empty()) {
      a.corrections = ints(corrections_) + v * V;
      a.corrections_case = static_cast<ptrdiff_t>(vectors_) * groups_ * V;
    }
    float* to = ctx.at(out) + n * out.image + y * out.row;
    if (out.signs()) {
      a.limits = ints(limits_) + v * V;
      a.out_bits = reinterpret_cast<char*>(to) + v * V / 8;
      return;
    }
    // A blocked map may have fewer blocks than whole words of channels would fill.
    a.vectors = std::min(count, out.blocks - v);
    const auto of = [&](const Buffer& b) { return b.size() != 0 ? b.data() + v * V : nullptr; };
    a.scale = of(scale_);
    a.bias = of(epilogue_.bias);
    a.slope = of(epilogue_.slope);
    a.out = to + v * out.plane;
    if (epilogue_.has_residual) {
      a.residual = ctx.at(residual_) + n * residual_.image + y * residual_.row + v * residual_.plane;
    }
  }
  // The cases of a row's outputs; null where there is nothing to correct.
  const uint16_t* row_cases(int y) const {
    if (corrected_.empty()) return nullptr;
    const size_t r = static_cast<size_t>(row_cases_[static_cast<size_t>(y)]);
    return corrected_[r] != 0 ? cases_.data() + r * static_cast<size_t>(out.w) : nullptr;
  }

  Tensor in_, residual_;
  const BitsKernels& kernels_;
  BitsConvShape shape_;
  RowReach reach_;
  std::vector<int64_t> row_cases_;
  std::vector<uint16_t> cases_;     // of each output, for rows of each case
  std::vector<uint8_t> corrected_;  // whether rows of a case have anything to correct
  ptrdiff_t start_ = 0;
  int64_t filter_words_ = 0;
  int groups_ = 1, vectors_ = 0, group_words_ = 0;

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
      throw std::invalid_argument("corrections are cases of rows by cases of columns by channels");
    }
    const auto within = [](const std::vector<int64_t>& cases, int64_t count) {
      return std::all_of(cases.begin(), cases.end(), [&](int64_t c) { return c >= 0 && c < count; });
    };
    if (!within(rows, given.shape[0]) || !within(columns, given.shape[1])) {
      throw std::invalid_argument("there is no such case of corrections");
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

  Epilogue epilogue_;
  Buffer limits_, scale_, corrections_;
};

}  // namespace fastcnn
