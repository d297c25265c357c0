// Linear layers of circulant blocks: y = (C(v_ij)) x with blocks of b x b numbers, C(v)[r, c] = v[(r - c) mod b]. Plain
// rows in and out.
//
// The spectrum of each block of the input is made once, each block's product is one complex multiplication a frequency,
// and the sums over the blocks of a row come before one inverse transform. Both transforms are products with a small
// matrix: b is short. Weights are kept as spectra, b numbers for each block.
//
// References: Ding et al. 2017, arXiv:1708.08917.
#include <algorithm>
#include <cmath>

#include "kernels/elementwise/elementwise.h"
#include "kernels/spectral/spectral.h"
#include "runtime/step.h"

namespace fastcnn {
namespace {

constexpr int64_t kRows = 16;  // of the batch at a time: their spectra stay near while the weights of V rows pass

class BlockCirculantStep final : public Step {
 public:
  explicit BlockCirculantStep(const StepSpec& spec)
      : in_(spec.in.at(0)), kernels_(spectral_kernels(spec.isa)), elementwise_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    if (in_.blocked || out.blocked) throw std::invalid_argument("block_circulant: needs plain tensors");
    rows_ = spec.integer("rows");
    inputs_ = in_.count() / rows_;
    outputs_ = out.count() / rows_;
    act_ = parse_activation(spec);
    const FloatArray& vectors = spec.weight("vectors");
    const int64_t p = vectors.shape.at(0);
    columns_ = vectors.shape.at(1);
    size_ = vectors.shape.at(2);
    slots_ = (size_ + 1) / 2;
    const int V = kernels_.lanes;
    width_ = (2 * slots_ + V - 1) / V * V;
    back_width_ = (size_ + V - 1) / V * V;
    groups_ = (p + V - 1) / V;
    matrices();
    pack(vectors, p);
    if (spec.has_weight("bias")) {
      const FloatArray& bias = spec.weight("bias");
      bias_ = Buffer(bias.size);
      std::copy(bias.data, bias.data + bias.size, bias_.data());
    }
  }
  std::string kernel() const override {
    return "block_circulant_f32_b" + std::to_string(size_) + "_" + isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override {
    return (weights_.size() + forward_.size() + back_.size() + bias_.size()) * sizeof(float);
  }
  size_t scratch_floats(int threads) const override {
    return shared_floats() + per_thread() * static_cast<size_t>(threads);
  }
  Region opening(int thread, int threads) const override {
    int64_t begin, end;
    RunContext::part_of(thread, threads, groups_, begin, end, 1);
    const int64_t each = slots_ * columns_ * 2 * kernels_.lanes;
    return {weights_.data() + begin * each, static_cast<ptrdiff_t>((end - begin) * each * 4)};
  }

  void run(const RunContext& ctx) const override {
    const int V = kernels_.lanes;
    float* const spectra = ctx.scratch;  // [slot][row][column][2]
    float* const own = ctx.scratch + shared_floats() + per_thread() * static_cast<size_t>(ctx.thread);
    const ptrdiff_t slot_floats = rows_ * columns_ * 2;
    int64_t begin, end;
    ctx.part(rows_ * columns_, begin, end);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / columns_, column = task % columns_;
      const int64_t count = std::min(size_, inputs_ - column * size_);
      kernels_.small_product(ctx.at(in_) + row * inputs_ + column * size_, 1, static_cast<int>(count), forward_.data(),
                             static_cast<int>(width_), own);
      float* to = spectra + task * 2;
      for (int64_t slot = 0; slot < slots_; ++slot, to += slot_floats) {
        to[0] = own[2 * slot];
        to[1] = own[2 * slot + 1];
      }
    }
    ctx.sync();
    ctx.part(groups_, begin, end);
    float* const products = own;
    float* const block = own + slots_ * kRows * 2 * V;
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t first = 0; first < rows_; first += kRows) {
        BlockProduct p;
        p.rows = static_cast<int>(std::min(kRows, rows_ - first));
        p.x = spectra + first * columns_ * 2;
        p.w = weights_.data() + group * slots_ * columns_ * 2 * V;
        p.y = products;
        p.x_slot = slot_floats;
        p.x_row = columns_ * 2;
        p.slots = static_cast<int>(slots_);
        p.columns = static_cast<int>(columns_);
        kernels_.block_product(p);
        for (int row = 0; row < p.rows; ++row)
          finish(ctx, group * V, first + row, products + row * 2 * V, p.rows, block);
      }
    }
  }

 private:
  size_t shared_floats() const { return static_cast<size_t>(slots_ * rows_ * columns_ * 2); }
  size_t per_thread() const {
    return static_cast<size_t>(std::max(width_, slots_ * kRows * 2 * kernels_.lanes + back_width_ + 2 * slots_));
  }

  // V blocks of one row's output from their spectra: products[slot][row][2][V].
  void finish(const RunContext& ctx, int64_t block0, int64_t row, const float* products, int rows, float* block) const {
    const int V = kernels_.lanes;
    float* const numbers = block + back_width_;
    for (int lane = 0; lane < V; ++lane) {
      const int64_t from = (block0 + lane) * size_, count = std::min(size_, outputs_ - from);
      if (count <= 0) return;
      for (int64_t k = 0; k < 2 * slots_; ++k) {
        numbers[k] = products[(k / 2) * rows * 2 * V + (k % 2) * V + lane];
      }
      kernels_.small_product(numbers, 1, static_cast<int>(2 * slots_), back_.data(), static_cast<int>(back_width_),
                             block);
      float* const to = ctx.at(out) + row * outputs_ + from;
      if (bias_.size() != 0) {
        for (int64_t i = 0; i < count; ++i) to[i] = block[i] + bias_.data()[from + i];
      } else {
        std::copy(block, block + count, to);
      }
      if (act_.kind != Act::kNone) elementwise_.unary(to, to, count, act_, nullptr);
    }
  }

  // Numbers of a block to its slots, and back.
  void matrices() {
    forward_ = Buffer(static_cast<size_t>(size_ * width_));
    back_ = Buffer(static_cast<size_t>(2 * slots_ * back_width_));
    for (int64_t k = 0; k < 2 * slots_; ++k) {
      const bool real = k < 2;
      const int64_t frequency = real ? (k == 0 ? 0 : size_ / 2) : k / 2;
      if (k == 1 && size_ % 2 != 0) continue;  // there is no frequency b / 2
      for (int64_t i = 0; i < size_; ++i) {
        const double angle = 2 * 3.14159265358979323846 * static_cast<double>(frequency * i % size_) / size_;
        const double value = real || k % 2 == 0 ? std::cos(angle) : -std::sin(angle);
        forward_.data()[i * width_ + k] = static_cast<float>(value);
        back_.data()[k * back_width_ + i] = static_cast<float>(value * (real ? 1.0 : 2.0) / size_);
      }
    }
  }

  void pack(const FloatArray& vectors, int64_t p) {
    const int V = kernels_.lanes;
    weights_ = Buffer(static_cast<size_t>(groups_ * slots_ * columns_ * 2 * V));
    std::vector<double> cosines(static_cast<size_t>(size_)), sines(static_cast<size_t>(size_));
    for (int64_t i = 0; i < size_; ++i) {
      const double angle = 2 * 3.14159265358979323846 * static_cast<double>(i) / size_;
      cosines[static_cast<size_t>(i)] = std::cos(angle);
      sines[static_cast<size_t>(i)] = std::sin(angle);
    }
    for (int64_t i = 0; i < p; ++i) {
      for (int64_t j = 0; j < columns_; ++j) {
        const float* v = vectors.data + (i * columns_ + j) * size_;
        for (int64_t k = 0; k < 2 * slots_; ++k) {
          const bool real = k < 2;
          if (k == 1 && size_ % 2 != 0) continue;
          const int64_t frequency = real ? (k == 0 ? 0 : size_ / 2) : k / 2;
          double sum = 0;
          for (int64_t n = 0; n < size_; ++n) {
            const auto at = static_cast<size_t>(frequency * n % size_);
            sum += v[n] * (real || k % 2 == 0 ? cosines[at] : -sines[at]);
          }
          weights_.data()[(((i / V) * slots_ + k / 2) * columns_ + j) * 2 * V + (k % 2) * V + i % V] =
              static_cast<float>(sum);
        }
      }
    }
  }

  Tensor in_;
  const SpectralKernels& kernels_;
  const ElementwiseKernels& elementwise_;
  int64_t rows_ = 1, inputs_ = 1, outputs_ = 1, columns_ = 1, size_ = 1, slots_ = 1, groups_ = 1;
  int64_t width_ = 0, back_width_ = 0;
  Activation act_;
  Buffer weights_, forward_, back_, bias_;
};

}  // namespace

std::unique_ptr<Step> make_block_circulant(const StepSpec& spec) { return std::make_unique<BlockCirculantStep>(spec); }

}  // namespace fastcnn
