#include "kernels/depthwise/depthwise.h"

#include <algorithm>

#include "runtime/step.h"

namespace fastcnn {
namespace {

class DepthwiseStep final : public Step {
 public:
  explicit DepthwiseStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(depthwise_kernels(spec.isa)) {
    out = spec.out;
    const int V = kernels_.lanes;
    epilogue_ = parse_epilogue(spec, out.blocks, V);
    if (epilogue_.has_residual) residual_ = spec.in.at(1);
    const auto& stride = spec.list("stride", 2);
    const auto& padding = spec.list("padding", 4);
    const auto& dilation = spec.list("dilation", 2);
    const FloatArray& w = spec.weight("weight");
    const int64_t taps = w.shape.at(2) * w.shape.at(3);
    if (w.shape.at(0) != in_.c || w.shape.at(1) != 1 || !in_.blocked) {
      throw std::invalid_argument("depthwise: needs one filter per channel and a blocked input");
    }
    shape_.kernel_h = static_cast<int>(w.shape[2]);
    shape_.kernel_w = static_cast<int>(w.shape[3]);
    shape_.stride_w = static_cast<int>(stride[1]);
    shape_.dilation_w = static_cast<int>(dilation[1]);
    shape_.out_w = out.w;
    shape_.in_out_row = stride[0] * in_.row;
    shape_.in_tap_row = dilation[0] * in_.row;
    shape_.out_row = out.row;
    shape_.res_row = residual_.row;
    shape_.act = epilogue_.act;
    shape_.act_before_residual = epilogue_.act_before_residual;
    start_ = -padding[0] * in_.row - padding[1] * V;
    weights_ = Buffer(static_cast<size_t>(out.blocks * taps * V));
    for (int64_t c = 0; c < out.c; ++c) {
      for (int64_t k = 0; k < taps; ++k) weights_.data()[(c / V * taps + k) * V + c % V] = w.data[c * taps + k];
    }
    taps_ = static_cast<int>(taps);
    reach_ = {static_cast<int>(stride[0]), -static_cast<int>(padding[0]),
              static_cast<int>((w.shape[2] - 1) * dilation[0] + 1)};
    split_rows_ = spec.word("split", "rows") == "rows";
  }

  std::string kernel() const override {
    return "depthwise_f32_k" + std::to_string(shape_.kernel_h) + "x" + std::to_string(shape_.kernel_w) + "_" +
           isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override { return weights_.size() * sizeof(float) + epilogue_.bytes(); }

  std::optional<RowReach> row_reach() const override { return reach_; }

  void rows(const RunContext& ctx, int n, int row0, int row1) const override {
    const int64_t first = static_cast<int64_t>(n) * out.blocks;
    for (int64_t i = first; i < first + out.blocks; ++i) plane(ctx, i, row0, row1);
  }

  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    const int64_t planes = static_cast<int64_t>(out.n) * out.blocks;
    if (split_rows_ && out.n % ctx.threads != 0) {
      // Rows, as the neighbouring convolutions split them, so that a core reads what it has just written.
      int64_t row0, row1;
      ctx.part(out.h, row0, row1);
      for (int64_t i = 0; i < planes; ++i) plane(ctx, i, static_cast<int>(row0), static_cast<int>(row1));
      return;
    }
    ctx.part(planes, begin, end);
    for (int64_t i = begin; i < end; ++i) plane(ctx, i, 0, out.h);
  }

 private:
  void plane(const RunContext& ctx, int64_t i, int row0, int row1) const {
    const int V = kernels_.lanes;
    const ptrdiff_t n = i / out.blocks, block = i % out.blocks;
    DepthwiseArgs a;
    a.in = ctx.at(in_) + n * in_.image + block * in_.plane + start_;
    a.out = ctx.at(out) + n * out.image + block * out.plane;
    if (epilogue_.has_residual) a.residual = ctx.at(residual_) + n * residual_.image + block * residual_.plane;
    a.weights = weights_.data() + block * taps_ * V;
    a.bias = epilogue_.bias.size() != 0 ? epilogue_.bias.data() + block * V : nullptr;
    a.slope = epilogue_.act.slope != nullptr ? epilogue_.act.slope + block * V : nullptr;
    a.row0 = row0;
    a.row1 = row1;
    kernels_.run(shape_, a);
  }

  Tensor in_, residual_;
  const DepthwiseKernels& kernels_;
  Epilogue epilogue_;
  DepthwiseShape shape_;
  RowReach reach_;
  Buffer weights_;
  ptrdiff_t start_ = 0;
  int taps_ = 0;
  bool split_rows_ = true;
};

}  // namespace

std::unique_ptr<Step> make_depthwise(const StepSpec& spec) { return std::make_unique<DepthwiseStep>(spec); }

}  // namespace fastcnn
