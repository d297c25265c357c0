// What steps on maps of bytes share (kernels/int8).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/int8/int8.h"
#include "runtime/step.h"

namespace fastcnn {

inline const uint8_t* bytes(const float* p) { return reinterpret_cast<const uint8_t*>(p); }
inline uint8_t* bytes(float* p) { return reinterpret_cast<uint8_t*>(p); }

inline int whole_groups(int channels) { return (channels + kInt8Group - 1) / kInt8Group * kInt8Group; }

inline int zero_of(const StepSpec& spec, const char* key) {
  const int64_t zero = spec.integer(key);
  if (zero < 0 || zero > 255) throw std::invalid_argument("step " + spec.op + ": '" + key + "' is no byte");
  return static_cast<int>(zero);
}

// One number for each channel, padded to whole groups of them.
inline Buffer per_channel(const StepSpec& spec, const char* key, int channels) {
  const FloatArray& w = spec.weight(key);
  if (w.size != static_cast<size_t>(channels)) {
    throw std::invalid_argument("step " + spec.op + ": '" + key + "' has not one number for each channel");
  }
  Buffer buffer(static_cast<size_t>(whole_groups(channels)));
  std::fill(buffer.data(), buffer.data() + buffer.size(), 0.0f);
  std::copy(w.data, w.data + w.size, buffer.data());
  return buffer;
}

// Floats that hold whole numbers, in their place.
inline void to_ints(Buffer& buffer) {
  for (size_t i = 0; i < buffer.size(); ++i) {
    const int32_t value = static_cast<int32_t>(std::min(2e9f, std::max(-2e9f, buffer.data()[i])));
    std::memcpy(buffer.data() + i, &value, sizeof value);
  }
}
inline const int32_t* ints(const Buffer& buffer) { return reinterpret_cast<const int32_t*>(buffer.data()); }

// Sums of products of bytes: what all kinds of convolution share.
class Int8Step : public Step {
 protected:
  // Rows of the input, numbers of each channel, residual and output.
  explicit Int8Step(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(int8_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.bytes() || !out.blocked || out.signs() || (out.bytes() && out.lanes == 1)) {
      throw std::invalid_argument("step " + spec.op + ": makes bytes of bytes, of more than 4 channels, or floats");
    }
    const auto &stride = spec.list("stride", 2), &padding = spec.list("padding", 4);
    in_row_ = stride[0] * in_.row;
    first_ = -padding[0] * in_.row - padding[1] * in_.pixel;
    vectors_ = whole_groups(out.c) / kernels_.lanes;
    starts_ = per_channel(spec, "start", out.c);
    to_ints(starts_);
    scale_ = per_channel(spec, "scale", out.c);
    bias_ = per_channel(spec, "bias", out.c);
    epilogue_ = parse_epilogue(spec, vectors_, kernels_.lanes);
    to_.act = epilogue_.act;
    to_.act_before_residual = epilogue_.act_before_residual;
    to_.out_pixel = out.bytes() ? out.pixel * 4 : out.pixel;
    to_.out_vector = out.plane;
    if (out.bytes()) {
      to_.factor = static_cast<float>(spec.number("out_factor"));
      to_.zero = zero_of(spec, "out_zero");
      clip(spec);
    }
    if (epilogue_.has_residual) {
      residual_ = spec.in.at(1);
      to_.res_pixel = residual_.bytes() ? residual_.pixel * 4 : residual_.pixel;
      to_.res_vector = residual_.plane;
      if (residual_.bytes()) {
        to_.residual_step = static_cast<float>(spec.number("residual_step"));
        to_.residual_zero = static_cast<float>(zero_of(spec, "residual_zero"));
      }
    }
  }

  size_t numbers_bytes() const {
    return (starts_.size() + scale_.size() + bias_.size()) * sizeof(float) + epilogue_.bytes();
  }
  const uint8_t* from(const RunContext& ctx, int64_t n, int64_t y) const {
    return bytes(static_cast<const float*>(ctx.at(in_)) + n * in_.image + y * in_row_ + first_);
  }
  // Where channel vectors v ... v + count - 1 of a row go; returns how many of them there are.
  int destination(const RunContext& ctx, int64_t n, int64_t y, int v, int count, Int8Out& to) const {
    to = to_;
    const ptrdiff_t channel = static_cast<ptrdiff_t>(v) * kernels_.lanes;
    to.start = ints(starts_) + channel;
    to.scale = scale_.data() + channel;
    to.bias = bias_.data() + channel;
    to.slope = epilogue_.slope.size() != 0 ? epilogue_.slope.data() + channel : nullptr;
    if (epilogue_.has_residual) {
      const float* other = ctx.at(residual_) + n * residual_.image + y * residual_.row;
      if (residual_.bytes()) {
        to.residual = bytes(other) + channel;
      } else {
        to.residual_floats = other + v * residual_.plane;
      }
    }
    float* row = ctx.at(out) + n * out.image + y * out.row;
    if (out.bytes()) {
      to.out = bytes(row) + channel;
      return count;
    }
    // A blocked map may have fewer blocks than whole groups of channels would fill.
    to.out_floats = row + v * out.plane;
    return std::max(0, std::min(count, out.blocks - v));
  }

  Tensor in_, residual_;
  const Int8Kernels& kernels_;
  int vectors_ = 0;

  static float level(float y, float factor, int zero) {
    return std::min(255.0f, std::max(0.0f, std::nearbyint(y * factor) + static_cast<float>(zero)));
  }

 private:
  // Where a clamp at the end, or nothing, may as well be one of levels.
  void clip(const StepSpec& spec) {
    const bool clamp = to_.act.kind == Act::kClamp;
    if ((!clamp && to_.act.kind != Act::kNone) || to_.act_before_residual) return;
    // Sums are no larger than weights of 127 and inputs of 255 make them; a residual of floats may be anything.
    const double most = 255.0 * 128.0 * (4.0 * static_cast<double>(spec.weight("weight").size) / out.c);
    double largest = 0;
    for (int c = 0; c < out.c; ++c) {
      const double sum = most + std::fabs(static_cast<double>(ints(starts_)[c]));
      const double y = sum * std::fabs(scale_.data()[c]) + std::fabs(bias_.data()[c]);
      largest = std::max(largest, y);
    }
    if (epilogue_.has_residual) {
      if (!spec.in.at(1).bytes()) return;
      largest += 255.0 * spec.number("residual_step");
    }
    to_.direct = largest * to_.factor < 1e9;
    if (clamp) {
      to_.low = static_cast<int>(level(to_.act.lo, to_.factor, to_.zero));
      to_.high = static_cast<int>(level(to_.act.hi, to_.factor, to_.zero));
    }
  }

  Epilogue epilogue_;
  Buffer starts_, scale_, bias_;
  Int8Out to_;
  ptrdiff_t in_row_ = 0, first_ = 0;
};

}  // namespace fastcnn
