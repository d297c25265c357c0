// Products of matrices that both come from the input (attention): out[i] = a[i] (M x K) * b[i] (K x N), row-major.
// A panel of columns stays in registers and the nearest cache while K runs; every kDepth terms it is added to the
// result, which keeps the rounding error of long sums down.
#include <algorithm>

#include "runtime/step.h"

namespace fastcnn {
namespace {

constexpr int64_t kDepth = 128, kColumns = 64;

class MatmulStep final : public Step {
 public:
  explicit MatmulStep(const StepSpec& spec) : a_(spec.in.at(0)), b_(spec.in.at(1)) {
    out = spec.out;
    m_ = spec.integer("m");
    k_ = spec.integer("k");
    n_ = spec.integer("n");
    count_ = spec.integer("count");
    if (a_.blocked || b_.blocked || out.blocked) throw std::invalid_argument("matmul: needs plain tensors");
    if (a_.count() != count_ * m_ * k_ || b_.count() != count_ * k_ * n_ || out.count() != count_ * m_ * n_) {
      throw std::invalid_argument("matmul: extents differ from the tensors'");
    }
  }
  std::string kernel() const override { return "matmul_f32"; }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(count_ * m_, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const float* b = ctx.at(b_) + i / m_ * k_ * n_;
      for (int64_t j = 0; j < n_; j += kColumns) {
        row(ctx.at(a_) + i * k_, b + j, ctx.at(out) + i * n_ + j, std::min(kColumns, n_ - j));
      }
    }
  }

 private:
  void row(const float* a, const float* b, float* to, int64_t columns) const {
    float total[kColumns] = {};
    for (int64_t k0 = 0; k0 < k_; k0 += kDepth) {
      float part[kColumns] = {};
      for (int64_t k = k0; k < std::min(k_, k0 + kDepth); ++k) {
        const float x = a[k];
        const float* line = b + k * n_;
        if (columns == kColumns) {
          for (int64_t j = 0; j < kColumns; ++j) part[j] += x * line[j];
        } else {
          for (int64_t j = 0; j < columns; ++j) part[j] += x * line[j];
        }
      }
      for (int64_t j = 0; j < columns; ++j) total[j] += part[j];
    }
    std::copy(total, total + columns, to);
  }

  Tensor a_, b_;
  int64_t m_ = 0, k_ = 0, n_ = 0, count_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_matmul(const StepSpec& spec) { return std::make_unique<MatmulStep>(spec); }

}  // namespace fastcnn
