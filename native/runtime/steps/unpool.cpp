// The inverse of a max pool: values go where the maxima of the windows of a second map stand, zeros elsewhere. The
// windows do not overlap, so every place is written once. The first of equal maxima wins, and NaN over all, as in
// torch's max pool.
#include <algorithm>

#include "runtime/steps/rows.h"

namespace fastcnn {
namespace {

class UnpoolStep final : public Step {
 public:
  explicit UnpoolStep(const StepSpec& spec) : values_(spec.in.at(0)), from_(spec.in.at(1)) {
    out = spec.out;
    const auto& kernel = spec.list("kernel", 2);
    const auto& stride = spec.list("stride", 2);
    const auto& padding = spec.list("padding", 4);
    std::copy_n(kernel.begin(), 2, kernel_);
    std::copy_n(stride.begin(), 2, stride_);
    std::copy_n(padding.begin(), 2, before_);
    if (!values_.blocked || !from_.blocked || !out.blocked) throw std::invalid_argument("unpool: needs blocked maps");
    if (from_.h != out.h || from_.w != out.w || values_.blocks != out.blocks || from_.blocks != out.blocks) {
      throw std::invalid_argument("unpool: shapes differ");
    }
    if (stride_[0] < kernel_[0] || stride_[1] < kernel_[1]) throw std::invalid_argument("unpool: windows overlap");
  }
  std::string kernel() const override { return "max_unpool_f32"; }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * out.blocks, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const ptrdiff_t n = i / out.blocks, block = i % out.blocks;
      plane(ctx.at(values_) + n * values_.image + block * values_.plane,
            ctx.at(from_) + n * from_.image + block * from_.plane, ctx.at(out) + n * out.image + block * out.plane);
    }
  }

 private:
  void plane(const float* values, const float* from, float* to) const {
    const int V = out.lanes;
    for (int y = 0; y < out.h; ++y)
      std::fill(to + y * out.row, to + y * out.row + out.w * static_cast<ptrdiff_t>(V), 0.0f);
    for (int y = 0; y < values_.h; ++y) {
      const int64_t top = y * stride_[0] - before_[0];
      const int64_t y0 = std::max<int64_t>(0, top), y1 = std::min<int64_t>(out.h, top + kernel_[0]);
      for (int x = 0; x < values_.w; ++x) {
        const int64_t left = x * stride_[1] - before_[1];
        const int64_t x0 = std::max<int64_t>(0, left), x1 = std::min<int64_t>(out.w, left + kernel_[1]);
        if (y0 >= y1 || x0 >= x1) continue;
        for (int l = 0; l < V; ++l) {
          int64_t at_y = y0, at_x = x0;
          float top_value = from[y0 * from_.row + x0 * V + l];
          for (int64_t r = y0; r < y1; ++r) {
            for (int64_t c = x0; c < x1; ++c) {
              const float v = from[r * from_.row + c * V + l];
              if (v > top_value || v != v) {
                top_value = v;
                at_y = r;
                at_x = c;
              }
            }
          }
          to[at_y * out.row + at_x * V + l] = values[y * values_.row + static_cast<ptrdiff_t>(x) * V + l];
        }
      }
    }
  }

  Tensor values_, from_;
  int64_t kernel_[2] = {1, 1}, stride_[2] = {1, 1}, before_[2] = {0, 0};
};

}  // namespace

std::unique_ptr<Step> make_unpool(const StepSpec& spec) { return std::make_unique<UnpoolStep>(spec); }

}  // namespace fastcnn
