// Layers whose matrix is a transform and diagonals: circulant, ACDC ("spectral") and Fastfood ("fastfood"). Plain rows
// in and out; threads share out rows and the blocks of a row.
//
// spectral: `blocks` times, z[j] = scale[j] * x[gather[j]] for 2 * points numbers, a complex transform of them in
// pairs, the mix of kernels/spectral, the transform back (1 / points is in the mix), y[i] = z[place[i]]. fastfood:
// `blocks` times, y = scale * H (gauss * P H (signs * x)), H orthonormal, x filled with zeros.
#include "kernels/spectral/spectral.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise/elementwise.h"
#include "runtime/step.h"

namespace fastcnn {
namespace {

// What both steps share: rows, blocks of each, and what follows.
class RowBlocks : public Step {
 public:
  explicit RowBlocks(const StepSpec& spec)
      : in_(spec.in.at(0)), kernels_(spectral_kernels(spec.isa)), elementwise_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    if (in_.blocked || out.blocked) throw std::invalid_argument(spec.op + ": needs plain tensors");
    rows_ = spec.integer("rows");
    blocks_ = spec.integer("blocks");
    inputs_ = in_.count() / rows_;
    outputs_ = out.count() / rows_;
    act_ = parse_activation(spec);
    if (spec.has_weight("bias")) {
      const FloatArray& bias = spec.weight("bias");
      bias_ = Buffer(bias.size);
      std::copy(bias.data, bias.data + bias.size, bias_.data());
    }
  }
  size_t scratch_floats(int threads) const override { return per_thread() * static_cast<size_t>(threads); }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(rows_ * blocks_, begin, end);
    float* const scratch = ctx.scratch + per_thread() * static_cast<size_t>(ctx.thread);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / blocks_, b = task % blocks_;
      float* const to = ctx.at(out) + row * outputs_ + b * step_;
      const int64_t count = std::min(step_, outputs_ - b * step_);
      block(b, ctx.at(in_) + row * inputs_, to, count, scratch);
      if (bias_.size() != 0) {
        const float* bias = bias_.data() + b * step_;
        for (int64_t i = 0; i < count; ++i) to[i] += bias[i];
      }
      if (act_.kind != Act::kNone) elementwise_.unary(to, to, count, act_, nullptr);
    }
  }

 protected:
  virtual void block(int64_t b, const float* x, float* y, int64_t count, float* scratch) const = 0;
  virtual size_t per_thread() const = 0;

  static Buffer copied(const FloatArray& array) {
    Buffer buffer(array.size);
    std::copy(array.data, array.data + array.size, buffer.data());
    return buffer;
  }
  static std::vector<int32_t> narrow(const std::vector<int64_t>& list) { return {list.begin(), list.end()}; }

  Tensor in_;
  const SpectralKernels& kernels_;
  const ElementwiseKernels& elementwise_;
  int64_t rows_ = 1, blocks_ = 1, inputs_ = 1, outputs_ = 1;
  int64_t step_ = 1;  // outputs of a block
  Activation act_;
  Buffer bias_;
};

class SpectralStep final : public RowBlocks {
 public:
  explicit SpectralStep(const StepSpec& spec) : RowBlocks(spec) {
    points_ = static_cast<int>(spec.integer("points"));
    int first, second;
    if (!spectral_split(kernels_.lanes, points_, first, second)) {
      throw std::invalid_argument("spectral: no transform of " + std::to_string(points_) + " points");
    }
    const auto numbers = static_cast<size_t>(2 * points_);
    gather_ = narrow(spec.list("gather", numbers));
    place_ = narrow(spec.lists.at("place"));
    step_ = static_cast<int64_t>(place_.size());
    roots_ = Buffer(numbers);
    spectral_roots(kernels_.lanes, points_, roots_.data());
    scale_ = copied(spec.weight("scale"));
    for (int i = 0; i < 5; ++i) {
      static const char* const kRoles[] = {"alpha", "beta", "gamma", "delta", "epsilon"};
      if (i < 2 || spec.has_weight(kRoles[i])) mix_[i] = copied(spec.weight(kRoles[i]));
    }
  }
  std::string kernel() const override { return std::string("spectral_f32_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override {
    size_t floats = roots_.size() + scale_.size() + bias_.size() + gather_.size() + place_.size();
    for (const Buffer& part : mix_) floats += part.size();
    return floats * sizeof(float);
  }

 private:
  size_t per_thread() const override { return static_cast<size_t>(6 * points_ + 4 * kSpare); }

  void block(int64_t b, const float* x, float* y, int64_t count, float* scratch) const override {
    const int M = points_;
    const ptrdiff_t from = b * 2 * M;
    float *const z_re = scratch, *const z_im = z_re + M + kSpare, *const m_re = z_im + M + kSpare,
                 *const m_im = m_re + M + kSpare, *const work = m_im + M + kSpare;
    const float* const scale = scale_.data() + from;
    for (int j = 0; j < M; ++j) {
      m_re[j] = scale[2 * j] * x[gather_[static_cast<size_t>(2 * j)]];
      m_im[j] = scale[2 * j + 1] * x[gather_[static_cast<size_t>(2 * j + 1)]];
    }
    kernels_.fft(m_re, m_im, z_re, z_im, roots_.data(), M, work);
    z_re[M] = z_re[0];
    z_im[M] = z_im[0];
    SpectralMix mix;
    const float** const parts[] = {&mix.alpha, &mix.beta, &mix.gamma, &mix.delta, &mix.epsilon};
    for (int i = 0; i < 5; ++i) {
      if (mix_[i].size() != 0) *parts[i] = mix_[i].data() + from;
    }
    kernels_.mix(z_re, z_im, m_re, m_im, mix, M);
    // Back: the transform with real and imaginary parts exchanged before and after.
    kernels_.fft(m_im, m_re, z_im, z_re, roots_.data(), M, work);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t place = place_[static_cast<size_t>(i)];
      y[i] = ((place & 1) != 0 ? z_im : z_re)[place >> 1];
    }
  }

  static constexpr int kSpare = 16;  // z[points], and whole cache lines
  int points_ = 0;
  std::vector<int32_t> gather_, place_;
  Buffer roots_, scale_, mix_[5];
};

class FastfoodStep final : public RowBlocks {
 public:
  explicit FastfoodStep(const StepSpec& spec) : RowBlocks(spec) {
    length_ = static_cast<int>(spec.integer("length"));
    step_ = length_;
    signs_ = copied(spec.weight("signs"));
    gauss_ = copied(spec.weight("gauss"));
    scale_ = copied(spec.weight("scale"));
    for (size_t i = 0; i < scale_.size(); ++i) scale_.data()[i] /= static_cast<float>(length_);  // of both transforms
    places_ = narrow(spec.list("permutation", static_cast<size_t>(blocks_ * length_)));
  }
  std::string kernel() const override { return std::string("fastfood_f32_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override {
    return (signs_.size() + gauss_.size() + scale_.size() + bias_.size() + places_.size()) * sizeof(float);
  }

 private:
  size_t per_thread() const override { return static_cast<size_t>(2 * length_); }

  void block(int64_t b, const float* x, float* y, int64_t count, float* scratch) const override {
    const ptrdiff_t from = b * length_;
    float *const one = scratch, *const two = scratch + length_;
    const float* const signs = signs_.data() + from;
    for (int64_t i = 0; i < inputs_; ++i) one[i] = signs[i] * x[i];
    std::fill(one + inputs_, one + length_, 0.0f);
    kernels_.hadamard(one, length_);
    const float* const gauss = gauss_.data() + from;
    const int32_t* const places = places_.data() + from;
    for (int i = 0; i < length_; ++i) two[i] = gauss[i] * one[places[i]];
    kernels_.hadamard(two, length_);
    const float* const scale = scale_.data() + from;
    for (int64_t i = 0; i < count; ++i) y[i] = scale[i] * two[i];
  }

  int length_ = 1;
  Buffer signs_, gauss_, scale_;
  std::vector<int32_t> places_;
};

}  // namespace

std::unique_ptr<Step> make_spectral(const StepSpec& spec) { return std::make_unique<SpectralStep>(spec); }
std::unique_ptr<Step> make_fastfood(const StepSpec& spec) { return std::make_unique<FastfoodStep>(spec); }

}  // namespace fastcnn
