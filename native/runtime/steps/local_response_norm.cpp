// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, in torch's form):
//   y[c] = x[c] / (k + alpha / size * sum over |window of c| x^2) ^ beta, window c - size/2 ... c + (size-1)/2.
#include <algorithm>

#include "kernels/elementwise/elementwise.h"
#include "runtime/step.h"

namespace fastcnn {
namespace {

class LocalResponseNormStep final : public Step {
 public:
  explicit LocalResponseNormStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("local_response_norm: needs blocked maps");
    const int64_t size = spec.integer("size");
    // A window may be far wider than the map has channels: what lies outside is zero, and is not summed.
    before_ = static_cast<int>(std::min<int64_t>(size / 2, in_.c - 1));
    after_ = static_cast<int>(std::min<int64_t>((size - 1) / 2, in_.c - 1));
    alpha_ = static_cast<float>(spec.number("alpha") / static_cast<double>(size));
    beta_ = static_cast<float>(spec.number("beta"));
    k_ = static_cast<float>(spec.number("k"));
  }
  std::string kernel() const override { return std::string("local_response_norm_f32_") + isa_name(kernels_.isa); }
  size_t scratch_floats(int threads) const override { return row_floats() * static_cast<size_t>(threads); }

  void run(const RunContext& ctx) const override {
    LocalResponse a;
    a.in_plane = in_.plane;
    a.out_plane = out.plane;
    a.channels = in_.c;
    a.before = before_;
    a.after = after_;
    a.alpha = alpha_;
    a.beta = beta_;
    a.k = k_;
    a.scratch = ctx.scratch + static_cast<size_t>(ctx.thread) * row_floats();
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * out.h, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const ptrdiff_t n = i / out.h, y = i % out.h;
      for (int x = 0; x < out.w; x += kPixels) {
        a.pixels = std::min(kPixels, out.w - x);
        a.in = ctx.at(in_) + n * in_.image + y * in_.row + x * in_.pixel;
        a.out = ctx.at(out) + n * out.image + y * out.row + x * out.pixel;
        kernels_.local_response(a);
      }
    }
  }

 private:
  static constexpr int kPixels = 64;  // at once: their squares fit L2

  size_t row_floats() const {
    return static_cast<size_t>(std::min(kPixels, out.w)) *
           static_cast<size_t>(in_.blocks * in_.lanes + before_ + after_);
  }

  Tensor in_;
  const ElementwiseKernels& kernels_;
  int before_ = 0, after_ = 0;
  float alpha_ = 0, beta_ = 0, k_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_local_response_norm(const StepSpec& spec) {
  return std::make_unique<LocalResponseNormStep>(spec);
}

}  // namespace fastcnn
