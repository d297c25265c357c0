#include "kernels/pool/pool.h"

#include "runtime/step.h"

namespace fastcnn {
namespace {

class PoolStep final : public Step {
 public:
  explicit PoolStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(pool_kernels(spec.isa)) {
    out = spec.out;
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("pool: needs blocked maps");
    shape_.kind = spec.word("kind", "max") == "max" ? PoolKind::kMax : PoolKind::kAverage;
    shape_.adaptive = spec.integer("adaptive", 0) != 0;
    shape_.h = in_.h;
    shape_.w = in_.w;
    shape_.out_h = out.h;
    shape_.out_w = out.w;
    shape_.in_row = in_.row;
    shape_.out_row = out.row;
    if (!shape_.adaptive) {
      const auto& kernel = spec.list("kernel", 2);
      const auto& stride = spec.list("stride", 2);
      const auto& padding = spec.list("padding", 4);
      const auto& dilation = spec.list("dilation", 2);
      shape_.kernel_h = static_cast<int>(kernel[0]);
      shape_.kernel_w = static_cast<int>(kernel[1]);
      shape_.stride_h = static_cast<int>(stride[0]);
      shape_.stride_w = static_cast<int>(stride[1]);
      shape_.dilation_h = static_cast<int>(dilation[0]);
      shape_.dilation_w = static_cast<int>(dilation[1]);
      shape_.pad_top = static_cast<int>(padding[0]);
      shape_.pad_left = static_cast<int>(padding[1]);
      shape_.pad_bottom = static_cast<int>(padding[2]);
      shape_.pad_right = static_cast<int>(padding[3]);
      shape_.count_include_pad = spec.integer("count_include_pad", 1) != 0;
      shape_.divisor_override = static_cast<int>(spec.integer("divisor_override", 0));
    }
  }

  std::string kernel() const override {
    return std::string(shape_.kind == PoolKind::kMax ? "max_pool" : "average_pool") + "_f32_" + isa_name(kernels_.isa);
  }

  std::optional<RowReach> row_reach() const override {
    if (shape_.adaptive) return std::nullopt;
    return RowReach{shape_.stride_h, -shape_.pad_top, (shape_.kernel_h - 1) * shape_.dilation_h + 1};
  }

  void rows(const RunContext& ctx, int n, int row0, int row1) const override {
    for (ptrdiff_t block = 0; block < out.blocks; ++block) plane(ctx, n, block, row0, row1);
  }

  void run(const RunContext& ctx) const override {
    const int64_t planes = static_cast<int64_t>(out.n) * out.blocks;
    int64_t begin, end, row0 = 0, row1 = out.h;
    if (out.h >= 2 * ctx.threads && out.n % ctx.threads != 0) {
      begin = 0;
      end = planes;
      ctx.part(out.h, row0, row1);
    } else {
      ctx.part(planes, begin, end);
    }
    for (int64_t i = begin; i < end; ++i) {
      plane(ctx, i / out.blocks, i % out.blocks, static_cast<int>(row0), static_cast<int>(row1));
    }
  }

 private:
  void plane(const RunContext& ctx, ptrdiff_t n, ptrdiff_t block, int row0, int row1) const {
    kernels_.run(shape_, ctx.at(in_) + n * in_.image + block * in_.plane,
                 ctx.at(out) + n * out.image + block * out.plane, row0, row1);
  }

  Tensor in_;
  const PoolKernels& kernels_;
  PoolShape shape_;
};

}  // namespace

std::unique_ptr<Step> make_pool(const StepSpec& spec) { return std::make_unique<PoolStep>(spec); }

}  // namespace fastcnn
