// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, in torch's form):
//   y[c] = x[c] / (k + alpha / size * sum over |window of c| x^2) ^ beta, window c - size/2 ... c + (size-1)/2.
#include <algorithm>
#include <cmath>

#include "runtime/steps/rows.h"

namespace fastcnn {
namespace {

class LocalResponseNormStep final : public Step {
 public:
  explicit LocalResponseNormStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("local_response_norm: needs blocked maps");
    size_ = static_cast<int>(spec.integer("size"));
    alpha_ = static_cast<float>(spec.number("alpha") / static_cast<double>(size_));
    beta_ = static_cast<float>(spec.number("beta"));
    k_ = static_cast<float>(spec.number("k"));
  }
  std::string kernel() const override { return "local_response_norm_f32"; }
  size_t scratch_floats(int threads) const override {
    return static_cast<size_t>(in_.blocks * in_.lanes + size_) * static_cast<size_t>(threads);
  }

  void run(const RunContext& ctx) const override {
    const int V = in_.lanes, before = size_ / 2, after = (size_ - 1) / 2, padded = in_.blocks * V;
    float* squares = ctx.scratch + static_cast<size_t>(ctx.thread) * static_cast<size_t>(padded + size_);
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * out.h, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const ptrdiff_t n = i / out.h, y = i % out.h;
      for (int x = 0; x < out.w; ++x) {
        const float* from = ctx.at(in_) + n * in_.image + y * in_.row + x * V;
        float* to = ctx.at(out) + n * out.image + y * out.row + x * V;
        for (int c = 0; c < in_.c; ++c) {
          const float v = from[c / V * in_.plane + c % V];
          squares[c] = v * v;
        }
        for (int c = 0; c < padded; ++c) {
          float& result = to[c / V * out.plane + c % V];
          if (c >= in_.c) {
            result = 0;
            continue;
          }
          float sum = 0;
          for (int j = std::max(0, c - before); j <= std::min(in_.c - 1, c + after); ++j) sum += squares[j];
          const float base = k_ + alpha_ * sum;
          // The usual exponent needs two square roots and no power.
          const float root = std::sqrt(base);
          const float scale = beta_ == 0.75f ? root * std::sqrt(root) : beta_ == 0.5f ? root : std::pow(base, beta_);
          result = from[c / V * in_.plane + c % V] / scale;
        }
      }
    }
  }

 private:
  Tensor in_;
  int size_ = 1;
  float alpha_ = 0, beta_ = 0, k_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_local_response_norm(const StepSpec& spec) {
  return std::make_unique<LocalResponseNormStep>(spec);
}

}  // namespace fastcnn
