// Steps that only move numbers: layout changes, regions of maps, strided copies, fills and resampling.
#include <algorithm>

#include "kernels/relayout/relayout.h"
#include "runtime/steps/rows.h"

namespace fastcnn {
namespace {

// Between any two layouts of one logical shape. Channels past the last become zero in blocked maps.
class RelayoutStep final : public Step {
 public:
  explicit RelayoutStep(const StepSpec& spec) : in_(spec.in.at(0)), kernels_(relayout_kernels(spec.isa)) {
    out = spec.out;
    if (in_.n != out.n || in_.c != out.c || in_.h != out.h || in_.w != out.w) {
      throw std::invalid_argument("relayout: shapes differ");
    }
  }
  std::string kernel() const override {
    return std::string("relayout_") + (in_.blocked ? "blocked" : "plain") + "_to_" +
           (out.blocked ? "blocked" : "plain");
  }
  void run(const RunContext& ctx) const override {
    if (dense(in_) && dense(out)) {
      int64_t begin, end;
      ctx.part(out.count(), begin, end, 16);
      std::memcpy(ctx.at(out) + begin, ctx.at(in_) + begin, sizeof(float) * static_cast<size_t>(end - begin));
      return;
    }
    const Tensor& shape = out.blocked ? out : in_;  // in_ is blocked, or both are plain and blocks is c
    for_each_plane(ctx, shape, [&](int n, int block, int row0, int row1) {
      for (int y = row0; y < row1; ++y) row(ctx, n, block, y);
    });
  }

 private:
  void row(const RunContext& ctx, int n, int block, int y) const {
    if (in_.blocked == out.blocked) {
      std::memcpy(ctx.at(out) + n * out.image + block * out.plane + y * out.row,
                  ctx.at(in_) + n * in_.image + block * in_.plane + y * in_.row,
                  sizeof(float) * static_cast<size_t>(out.w * out.pixel));
      return;
    }
    const Tensor& blocked = out.blocked ? out : in_;
    const Tensor& plain = out.blocked ? in_ : out;
    const int V = blocked.lanes, channels = std::min(V, blocked.c - block * V);
    const ptrdiff_t packed = n * blocked.image + block * blocked.plane + y * blocked.row;
    const ptrdiff_t planar = n * plain.image + static_cast<ptrdiff_t>(block) * V * plain.plane + y * plain.row;
    if (out.blocked) {
      kernels_.to_blocked(ctx.at(in_) + planar, plain.plane, channels, out.w, ctx.at(out) + packed);
    } else {
      kernels_.to_planar(ctx.at(in_) + packed, out.w, channels, ctx.at(out) + planar, plain.plane);
    }
  }
  // One run of numbers, row after row.
  static bool dense(const Tensor& t) { return !t.blocked && !t.has_border() && t.image == t.plane * t.blocks; }

  Tensor in_;
  const RelayoutKernels& kernels_;
};

// A box of a blocked map into a box of another: slices, concatenation, padding, strided subsampling.
class CopyRegionStep final : public Step {
 public:
  explicit CopyRegionStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    from_ = spec.list("from", 3);  // channel, row, column
    to_ = spec.list("to", 3);
    size_ = spec.list("size", 3);
    stride_ = spec.list("stride", 2);  // of the source, rows and columns
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("copy_region: needs blocked maps");
  }
  std::string kernel() const override { return "copy_region"; }
  void run(const RunContext& ctx) const override {
    const int V = out.lanes;
    const int64_t first = to_[0] / V, last = (to_[0] + size_[0] + V - 1) / V;
    int64_t begin, end;
    ctx.part(out.n * (last - first), begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / (last - first), block = first + i % (last - first);
      // Lanes of this block that belong to the region, and the source channel of the first of them.
      const int64_t lane0 = std::max<int64_t>(0, to_[0] - block * V);
      const int64_t lane1 = std::min<int64_t>(V, to_[0] + size_[0] - block * V);
      const int64_t channel = from_[0] + block * V + lane0 - to_[0];
      const bool whole = lane0 == 0 && lane1 == V && channel % V == 0;
      for (int64_t y = 0; y < size_[1]; ++y) {
        const float* source = ctx.at(in_) + n * in_.image + (from_[1] + y * stride_[0]) * in_.row + from_[2] * V;
        float* target = ctx.at(out) + n * out.image + block * out.plane + (to_[1] + y) * out.row + to_[2] * V;
        if (whole) {
          source += channel / V * in_.plane;
          if (stride_[1] == 1) {
            std::memcpy(target, source, sizeof(float) * static_cast<size_t>(size_[2] * V));
          } else {
            for (int64_t x = 0; x < size_[2]; ++x) {
              std::memcpy(target + x * V, source + x * stride_[1] * V, sizeof(float) * static_cast<size_t>(V));
            }
          }
          continue;
        }
        for (int64_t l = lane0; l < lane1; ++l) {
          const int64_t c = channel + l - lane0;
          const float* lane = source + c / V * in_.plane + c % V;
          for (int64_t x = 0; x < size_[2]; ++x) target[x * V + l] = lane[x * stride_[1] * V];
        }
        clear_dead_lanes(out, static_cast<int>(block), target, size_[2]);
      }
    }
  }

 private:
  Tensor in_;
  std::vector<int64_t> from_, to_, size_, stride_;
};

// Plain to plain, any rank: permutations, slices, concatenation.
class StridedCopyStep final : public Step {
 public:
  explicit StridedCopyStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    dims_ = spec.lists.at("dims");
    in_strides_ = spec.list("in_strides", dims_.size());
    out_strides_ = spec.list("out_strides", dims_.size());
    in_offset_ = spec.integer("in_offset", 0);
    out_offset_ = spec.integer("out_offset", 0);
    if (in_.blocked || out.blocked || dims_.empty()) throw std::invalid_argument("strided_copy: needs plain tensors");
  }
  std::string kernel() const override { return "strided_copy"; }
  void run(const RunContext& ctx) const override {
    const size_t inner = dims_.size() - 1;
    int64_t outer = 1;
    for (size_t d = 0; d < inner; ++d) outer *= dims_[d];
    int64_t begin, end;
    ctx.part(outer, begin, end);
    for (int64_t k = begin; k < end; ++k) {
      const float* from = ctx.at(in_) + in_offset_;
      float* to = ctx.at(out) + out_offset_;
      int64_t rest = k;
      for (size_t d = inner; d-- > 0;) {
        from += rest % dims_[d] * in_strides_[d];
        to += rest % dims_[d] * out_strides_[d];
        rest /= dims_[d];
      }
      const int64_t fs = in_strides_[inner], ts = out_strides_[inner];
      if (fs == 1 && ts == 1) {
        std::memcpy(to, from, sizeof(float) * static_cast<size_t>(dims_[inner]));
      } else {
        for (int64_t x = 0; x < dims_[inner]; ++x) to[x * ts] = from[x * fs];
      }
    }
  }

 private:
  Tensor in_;
  std::vector<int64_t> dims_, in_strides_, out_strides_;
  int64_t in_offset_ = 0, out_offset_ = 0;
};

// Given indices of one axis, in the given order, of a plain tensor seen as outer x axis x inner.
class GatherStep final : public Step {
 public:
  explicit GatherStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    axis_ = spec.integer("axis");
    inner_ = spec.integer("inner");
    indices_ = spec.lists.at("indices");
    const int64_t outer = in_.count() / (axis_ * inner_);
    if (in_.blocked || out.blocked) throw std::invalid_argument("gather: needs plain tensors");
    for (int64_t index : indices_) {
      if (index < 0 || index >= axis_) throw std::invalid_argument("gather: an index is outside the axis");
    }
    if (outer * static_cast<int64_t>(indices_.size()) * inner_ != out.count()) {
      throw std::invalid_argument("gather: extents differ from the tensors'");
    }
  }
  std::string kernel() const override { return "gather"; }
  void run(const RunContext& ctx) const override {
    const int64_t count = static_cast<int64_t>(indices_.size());
    int64_t begin, end;
    ctx.part(out.count() / inner_, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = indices_[static_cast<size_t>(i % count)];
      std::memcpy(ctx.at(out) + i * inner_, ctx.at(in_) + (i / count * axis_ + index) * inner_,
                  sizeof(float) * static_cast<size_t>(inner_));
    }
  }

 private:
  Tensor in_;
  int64_t axis_ = 1, inner_ = 1;
  std::vector<int64_t> indices_;
};

// One value everywhere, or a constant tensor.
class FillStep final : public Step {
 public:
  explicit FillStep(const StepSpec& spec) {
    out = spec.out;
    if (spec.has_weight("value")) {
      const FloatArray& w = spec.weight("value");
      if (out.blocked || static_cast<int64_t>(w.size) != out.count()) {
        throw std::invalid_argument("fill: a constant needs a plain tensor of its own size");
      }
      constant_ = Buffer(w.size);
      std::copy(w.data, w.data + w.size, constant_.data());
    } else {
      value_ = static_cast<float>(spec.number("value"));
    }
  }
  std::string kernel() const override { return constant_.size() != 0 ? "constant" : "fill"; }
  size_t weight_bytes() const override { return constant_.size() * sizeof(float); }
  void run(const RunContext& ctx) const override {
    if (!out.blocked) {
      int64_t begin, end;
      ctx.part(out.count(), begin, end, 16);
      for (int64_t i = begin; i < end; ++i) ctx.at(out)[i] = constant_.size() != 0 ? constant_.data()[i] : value_;
      return;
    }
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      for (int y = row0; y < row1; ++y) {
        float* row = ctx.at(out) + n * out.image + block * out.plane + y * out.row;
        std::fill(row, row + out.w * out.pixel, value_);
        clear_dead_lanes(out, block, row, out.w);
      }
    });
  }

 private:
  Buffer constant_;
  float value_ = 0;
};

// Bilinear or nearest: the planner gives, for every output row and column, two source positions and the weight of the
// second (0 for nearest).
class ResizeStep final : public Step {
 public:
  explicit ResizeStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("resize: needs blocked maps");
    const size_t h = static_cast<size_t>(out.h), w = static_cast<size_t>(out.w);
    y0_ = spec.list("y0", h);
    y1_ = spec.list("y1", h);
    x0_ = spec.list("x0", w);
    x1_ = spec.list("x1", w);
    const FloatArray &wy = spec.weight("wy"), &wx = spec.weight("wx");
    if (wy.size != h || wx.size != w) throw std::invalid_argument("resize: one weight per row and column");
    wy_.assign(wy.data, wy.data + h);
    wx_.assign(wx.data, wx.data + w);
  }
  std::string kernel() const override { return "resize_f32"; }
  void run(const RunContext& ctx) const override {
    const int V = out.lanes;
    for_each_plane(ctx, out, [&](int n, int block, int row0, int row1) {
      const float* plane = ctx.at(in_) + n * in_.image + block * in_.plane;
      for (int y = row0; y < row1; ++y) {
        const size_t sy = static_cast<size_t>(y);
        const float *top = plane + y0_[sy] * in_.row, *low = plane + y1_[sy] * in_.row;
        float* to = ctx.at(out) + n * out.image + block * out.plane + y * out.row;
        const float b = wy_[sy], a = 1.0f - b;
        for (int x = 0; x < out.w; ++x, to += V) {
          const size_t sx = static_cast<size_t>(x);
          const ptrdiff_t left = x0_[sx] * V, right = x1_[sx] * V;
          const float d = wx_[sx], c = 1.0f - d;
          if (b == 0.0f && d == 0.0f) {
            std::memcpy(to, top + left, sizeof(float) * static_cast<size_t>(V));
            continue;
          }
          for (int l = 0; l < V; ++l) {
            to[l] = a * (c * top[left + l] + d * top[right + l]) + b * (c * low[left + l] + d * low[right + l]);
          }
        }
      }
    });
  }

 private:
  Tensor in_;
  std::vector<int64_t> y0_, y1_, x0_, x1_;
  std::vector<float> wy_, wx_;
};

}  // namespace

std::unique_ptr<Step> make_relayout(const StepSpec& spec) { return std::make_unique<RelayoutStep>(spec); }
std::unique_ptr<Step> make_copy_region(const StepSpec& spec) { return std::make_unique<CopyRegionStep>(spec); }
std::unique_ptr<Step> make_strided_copy(const StepSpec& spec) { return std::make_unique<StridedCopyStep>(spec); }
std::unique_ptr<Step> make_fill(const StepSpec& spec) { return std::make_unique<FillStep>(spec); }
std::unique_ptr<Step> make_gather(const StepSpec& spec) { return std::make_unique<GatherStep>(spec); }
std::unique_ptr<Step> make_resize(const StepSpec& spec) { return std::make_unique<ResizeStep>(spec); }

}  // namespace fastcnn
