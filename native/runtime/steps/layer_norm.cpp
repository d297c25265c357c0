// Layer normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450) of the rows of a plain tensor:
//   y = (x - mean) / sqrt(variance + eps) * weight[i] + bias[i], mean and variance over the row.
// Sums in double; the mean is taken off before squaring.
#include <algorithm>
#include <cmath>

#include "runtime/step.h"

namespace fastcnn {
namespace {

class LayerNormStep final : public Step {
 public:
  explicit LayerNormStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    row_ = spec.integer("row");
    eps_ = spec.number("eps");
    if (in_.blocked || out.blocked) throw std::invalid_argument("layer_norm: needs plain tensors");
    if (row_ < 1 || out.count() % row_ != 0) throw std::invalid_argument("layer_norm: rows do not divide the tensor");
    weight_ = per_place(spec, "weight", 1.0f);
    bias_ = per_place(spec, "bias", 0.0f);
  }
  std::string kernel() const override { return "layer_norm_f32"; }
  size_t weight_bytes() const override { return (weight_.size() + bias_.size()) * sizeof(float); }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(out.count() / row_, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const float* x = ctx.at(in_) + i * row_;
      float* y = ctx.at(out) + i * row_;
      double sum = 0, squares = 0;
      for (int64_t k = 0; k < row_; ++k) sum += static_cast<double>(x[k]);
      const double mean = sum / static_cast<double>(row_);
      for (int64_t k = 0; k < row_; ++k) squares += (x[k] - mean) * (x[k] - mean);
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(row_) + eps_);
      for (int64_t k = 0; k < row_; ++k) {
        y[k] = static_cast<float>((x[k] - mean) * scale) * weight_.data()[k] + bias_.data()[k];
      }
    }
  }

 private:
  Buffer per_place(const StepSpec& spec, const std::string& role, float otherwise) const {
    Buffer buffer(static_cast<size_t>(row_));
    std::fill(buffer.data(), buffer.data() + row_, otherwise);
    if (!spec.has_weight(role)) return buffer;
    const FloatArray& given = spec.weight(role);
    if (given.size != static_cast<size_t>(row_)) throw std::invalid_argument("layer_norm: one " + role + " per place");
    std::copy(given.data, given.data + row_, buffer.data());
    return buffer;
  }

  Tensor in_;
  Buffer weight_, bias_;
  int64_t row_ = 1;
  double eps_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_layer_norm(const StepSpec& spec) { return std::make_unique<LayerNormStep>(spec); }

}  // namespace fastcnn
