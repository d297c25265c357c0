#include "kernels/elementwise/elementwise.h"

#include <algorithm>
#include <cmath>

#include "runtime/steps/rows.h"

namespace fastcnn {
namespace {

const float* at_block(const Buffer& buffer, int block, int lanes) {
  return buffer.size() != 0 ? buffer.data() + static_cast<ptrdiff_t>(block) * lanes : nullptr;
}

void require_same_layout(const StepSpec& spec) {
  for (const Tensor& t : spec.in) {
    if (t.blocked != spec.out.blocked) throw std::invalid_argument("step " + spec.op + ": layouts differ");
  }
}

class UnaryStep final : public Step {
 public:
  explicit UnaryStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    require_same_layout(spec);
    epilogue_ = parse_epilogue(spec, out.blocked ? out.blocks : 0, kernels_.lanes);
  }
  std::string kernel() const override { return std::string("unary_f32_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override { return epilogue_.bytes(); }
  void run(const RunContext& ctx) const override {
    if (!out.blocked) {
      int64_t begin, end;
      ctx.part(out.count(), begin, end, 16);
      kernels_.unary(ctx.at(in_) + begin, ctx.at(out) + begin, end - begin, epilogue_.act, nullptr);
      return;
    }
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      const float* from = ctx.at(in_) + n * in_.image + block * in_.plane;
      float* to = ctx.at(out) + n * out.image + block * out.plane;
      const float* slope = at_block(epilogue_.slope, block, kernels_.lanes);
      for (int y = row0; y < row1; ++y) {
        kernels_.unary(from + y * in_.row, to + y * out.row, out.w * out.pixel, epilogue_.act, slope);
      }
    });
  }

 private:
  Tensor in_;
  const ElementwiseKernels& kernels_;
  Epilogue epilogue_;
};

// Blocked operands have the output's shape, or one value per image and channel (h = w = 1), or n = 1. Plain operands
// broadcast as numpy does: the planner gives strides (0 where an operand does not move).
class BinaryStep final : public Step {
 public:
  explicit BinaryStep(const StepSpec& spec) : kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    require_same_layout(spec);
    epilogue_ = parse_epilogue(spec, out.blocked ? out.blocks : 0, kernels_.lanes);
    const std::string kind = spec.word("kind", "add");
    op_ = kind == "add"   ? BinaryOp::kAdd
          : kind == "sub" ? BinaryOp::kSub
          : kind == "mul" ? BinaryOp::kMul
                          : BinaryOp::kDiv;
    for (int i = 0; i < 2; ++i) in_[i] = spec.in.at(static_cast<size_t>(i));
    if (!out.blocked) {
      dims_ = spec.lists.at("dims");
      strides_[0] = spec.list("a_strides", dims_.size());
      strides_[1] = spec.list("b_strides", dims_.size());
      if (dims_.empty() || dims_.size() > kMaxRank) throw std::invalid_argument("binary: rank out of range");
    }
  }
  std::string kernel() const override { return std::string("binary_f32_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override { return epilogue_.bytes(); }
  void run(const RunContext& ctx) const override {
    if (out.blocked) {
      run_blocked(ctx);
    } else {
      run_plain(ctx);
    }
  }

 private:
  static constexpr size_t kMaxRank = 8;

  void run_blocked(const RunContext& ctx) const {
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      const float* from[2];
      Operand mode[2];
      for (int i = 0; i < 2; ++i) {
        from[i] = ctx.at(in_[i]) + (in_[i].n == 1 ? 0 : n) * in_[i].image + block * in_[i].plane;
        mode[i] = in_[i].h == out.h && in_[i].w == out.w ? Operand::kFull : Operand::kLanes;
      }
      float* to = ctx.at(out) + n * out.image + block * out.plane;
      const float* slope = at_block(epilogue_.slope, block, kernels_.lanes);
      for (int y = row0; y < row1; ++y) {
        kernels_.binary(op_, from[0] + (mode[0] == Operand::kFull ? y * in_[0].row : 0), mode[0],
                        from[1] + (mode[1] == Operand::kFull ? y * in_[1].row : 0), mode[1], to + y * out.row,
                        out.w * out.pixel, epilogue_.act, slope);
        if (op_ == BinaryOp::kDiv) clear_dead_lanes(out, block, to + y * out.row, out.w);
      }
    });
  }

  void run_plain(const RunContext& ctx) const {
    const size_t inner = dims_.size() - 1;
    int64_t outer = 1;
    for (size_t d = 0; d < inner; ++d) outer *= dims_[d];
    int64_t begin, end;
    ctx.part(outer, begin, end);
    Operand mode[2];
    for (int i = 0; i < 2; ++i) mode[i] = strides_[i][inner] == 0 ? Operand::kScalar : Operand::kFull;
    for (int64_t k = begin; k < end; ++k) {
      ptrdiff_t offset[2] = {0, 0};
      int64_t rest = k;
      for (size_t d = inner; d-- > 0;) {
        const int64_t index = rest % dims_[d];
        rest /= dims_[d];
        for (int i = 0; i < 2; ++i) offset[i] += index * strides_[i][d];
      }
      kernels_.binary(op_, ctx.at(in_[0]) + offset[0], mode[0], ctx.at(in_[1]) + offset[1], mode[1],
                      ctx.at(out) + k * dims_[inner], dims_[inner], epilogue_.act, nullptr);
    }
  }

  Tensor in_[2];
  const ElementwiseKernels& kernels_;
  Epilogue epilogue_;
  BinaryOp op_ = BinaryOp::kAdd;
  std::vector<int64_t> dims_, strides_[2];
};

class ScaleShiftStep final : public Step {
 public:
  explicit ScaleShiftStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    require_same_layout(spec);
    if (!out.blocked) throw std::invalid_argument("scale_shift: needs a blocked map");
    const int V = kernels_.lanes;
    epilogue_ = parse_epilogue(spec, out.blocks, V);
    const FloatArray &scale = spec.weight("scale"), &shift = spec.weight("shift");
    scale_ = Buffer(static_cast<size_t>(out.blocks * V));
    shift_ = Buffer(static_cast<size_t>(out.blocks * V));
    for (int c = 0; c < out.c; ++c) {
      scale_.data()[c] = scale.data[scale.size == 1 ? 0 : c];
      shift_.data()[c] = shift.data[shift.size == 1 ? 0 : c];
    }
  }
  std::string kernel() const override { return std::string("scale_shift_f32_") + isa_name(kernels_.isa); }
  size_t weight_bytes() const override { return (scale_.size() + shift_.size()) * sizeof(float) + epilogue_.bytes(); }
  void run(const RunContext& ctx) const override {
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      const float* from = ctx.at(in_) + n * in_.image + block * in_.plane;
      float* to = ctx.at(out) + n * out.image + block * out.plane;
      const ptrdiff_t c = static_cast<ptrdiff_t>(block) * kernels_.lanes;
      for (int y = row0; y < row1; ++y) {
        kernels_.scale_shift(from + y * in_.row, to + y * out.row, out.w * out.pixel, scale_.data() + c,
                             shift_.data() + c, epilogue_.act, at_block(epilogue_.slope, block, kernels_.lanes));
      }
    });
  }

 private:
  Tensor in_;
  const ElementwiseKernels& kernels_;
  Epilogue epilogue_;
  Buffer scale_, shift_;
};

// softmax along one axis of a plain tensor seen as outer x axis x inner.
class SoftmaxStep final : public Step {
 public:
  explicit SoftmaxStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    require_same_layout(spec);
    if (out.blocked) throw std::invalid_argument("softmax: needs plain tensors");
    outer_ = spec.integer("outer");
    axis_ = spec.integer("axis");
    inner_ = spec.integer("inner");
    log_ = spec.integer("log", 0) != 0;
  }
  std::string kernel() const override { return std::string("softmax_f32_") + isa_name(kernels_.isa); }
  size_t scratch_floats(int threads) const override {
    return inner_ == 1 ? 0 : static_cast<size_t>(2 * axis_ + 32) * static_cast<size_t>(threads);
  }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(outer_ * inner_, begin, end);
    float* line = ctx.scratch + static_cast<size_t>(2 * axis_ + 32) * static_cast<size_t>(ctx.thread);
    for (int64_t i = begin; i < end; ++i) {
      const ptrdiff_t start = i / inner_ * axis_ * inner_ + i % inner_;
      const float* from = ctx.at(in_) + start;
      float* to = ctx.at(out) + start;
      if (inner_ == 1) {
        kernels_.softmax(from, to, axis_, log_);
        continue;
      }
      for (int64_t k = 0; k < axis_; ++k) line[k] = from[k * inner_];
      kernels_.softmax(line, line + axis_, axis_, log_);
      for (int64_t k = 0; k < axis_; ++k) to[k * inner_] = line[axis_ + k];
    }
  }

 private:
  Tensor in_;
  const ElementwiseKernels& kernels_;
  int64_t outer_, axis_, inner_;
  bool log_;
};

// Mean, sum or maximum over any axes of a plain tensor: sizes and input strides of the kept and of the reduced axes.
// A NaN among the values is the maximum, as in torch.
class ReduceStep final : public Step {
 public:
  explicit ReduceStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(elementwise_kernels(spec.isa)) {
    out = spec.out;
    require_same_layout(spec);
    kind_ = spec.word("kind", "mean");
    max_ = kind_ == "max";
    if (kind_ != "mean" && kind_ != "sum" && !max_) throw std::invalid_argument("reduce: unknown kind '" + kind_ + "'");
    kept_ = spec.lists.at("kept");
    kept_strides_ = spec.list("kept_strides", kept_.size());
    reduced_ = spec.lists.at("reduced");
    reduced_strides_ = spec.list("reduced_strides", reduced_.size());
    for (int64_t d : reduced_) total_ *= d;
  }
  std::string kernel() const override { return kind_ + "_f32_" + isa_name(kernels_.isa); }
  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(out.count(), begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const float* from = ctx.at(in_) + locate(i, kept_, kept_strides_, kept_.size());
      ctx.at(out)[i] = max_ ? largest(from) : sum(from);
    }
  }

 private:
  float sum(const float* from) const {
    const bool run_inner = !reduced_.empty() && reduced_strides_.back() == 1;
    const int64_t inner = run_inner ? reduced_.back() : 1;
    double sum = 0;
    for (int64_t k = 0; k < total_ / inner; ++k) {
      const float* p = from + locate(k, reduced_, reduced_strides_, reduced_.size() - (run_inner ? 1 : 0));
      sum += run_inner ? static_cast<double>(kernels_.sum(p, inner)) : static_cast<double>(*p);
    }
    return static_cast<float>(kind_ == "sum" ? sum : sum / static_cast<double>(total_));
  }
  float largest(const float* from) const {
    float top = *from;
    for (int64_t k = 1; k < total_; ++k) {
      const float v = from[locate(k, reduced_, reduced_strides_, reduced_.size())];
      if (v > top || v != v) top = v;
    }
    return top;
  }
  static ptrdiff_t locate(int64_t index, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides,
                          size_t rank) {
    ptrdiff_t offset = 0;
    for (size_t d = rank; d-- > 0;) {
      offset += index % dims[d] * strides[d];
      index /= dims[d];
    }
    return offset;
  }
  Tensor in_;
  const ElementwiseKernels& kernels_;
  std::string kind_;
  bool max_ = false;
  std::vector<int64_t> kept_, kept_strides_, reduced_, reduced_strides_;
  int64_t total_ = 1;
};

// Square roots, absolute values, signs and levels: rare, so they are no activations of every kernel.
class MathStep final : public Step {
 public:
  explicit MathStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    require_same_layout(spec);
    kind_ = spec.word("kind", "");
    if (kind_ == "quantize") {
      float* numbers[] = {&factor_, &step_, &zero_, &low_, &high_};
      const char* names[] = {"factor", "step", "zero", "low", "high"};
      for (int i = 0; i < 5; ++i) *numbers[i] = static_cast<float>(spec.number(names[i]));
    } else if (kind_ != "sqrt" && kind_ != "abs" && kind_ != "sign") {
      throw std::invalid_argument("math: unknown kind '" + kind_ + "'");
    }
  }
  std::string kernel() const override { return kind_ + "_f32"; }
  void run(const RunContext& ctx) const override {
    if (!out.blocked) {
      int64_t begin, end;
      ctx.part(out.count(), begin, end, 16);
      line(ctx.at(in_) + begin, ctx.at(out) + begin, end - begin);
      return;
    }
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      const float* from = ctx.at(in_) + n * in_.image + block * in_.plane;
      float* to = ctx.at(out) + n * out.image + block * out.plane;
      for (int y = row0; y < row1; ++y) {
        line(from + y * in_.row, to + y * out.row, out.w * out.pixel);
        clear_dead_lanes(out, block, to + y * out.row, out.w);
      }
    });
  }

 private:
  void line(const float* from, float* to, int64_t count) const {
    if (kind_ == "sqrt") {
      for (int64_t i = 0; i < count; ++i) to[i] = std::sqrt(from[i]);
    } else if (kind_ == "sign") {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i] >= 0.0f ? 1.0f : -1.0f;
    } else if (kind_ == "quantize") {
      for (int64_t i = 0; i < count; ++i) to[i] = level(from[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = std::fabs(from[i]);
    }
  }
  // The value of the nearest level, halves to even; NaN is the lowest.
  float level(float x) const {
    float at = std::nearbyint(x * factor_) + zero_;
    at = at > low_ ? at : low_;
    at = at < high_ ? at : high_;
    return (at - zero_) * step_;
  }
  Tensor in_;
  std::string kind_;
  float factor_ = 1, step_ = 1, zero_ = 0, low_ = 0, high_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_unary(const StepSpec& spec) { return std::make_unique<UnaryStep>(spec); }
std::unique_ptr<Step> make_binary(const StepSpec& spec) { return std::make_unique<BinaryStep>(spec); }
std::unique_ptr<Step> make_scale_shift(const StepSpec& spec) { return std::make_unique<ScaleShiftStep>(spec); }
std::unique_ptr<Step> make_softmax(const StepSpec& spec) { return std::make_unique<SoftmaxStep>(spec); }
std::unique_ptr<Step> make_reduce(const StepSpec& spec) { return std::make_unique<ReduceStep>(spec); }
std::unique_ptr<Step> make_math(const StepSpec& spec) { return std::make_unique<MathStep>(spec); }

}  // namespace fastcnn
