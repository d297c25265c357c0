// Group normalisation (Wu and He 2018, arXiv:1803.08494): per picture and group of channels
//   y = (x - mean) / sqrt(variance + eps) * weight[c] + bias[c], mean and variance over the group's channels and
//   pixels.
// Instance normalisation is the case of one channel per group. Two passes over the map, sums of rows in float and
// their sums in double: the mean is taken off before squaring, so that a large offset costs no digits.
#include <algorithm>
#include <cmath>

#include "runtime/steps/rows.h"

namespace fastcnn {
namespace {

class GroupNormStep final : public Step {
 public:
  explicit GroupNormStep(const StepSpec& spec) : in_(spec.in.at(0)) {
    out = spec.out;
    if (!in_.blocked || !out.blocked) throw std::invalid_argument("group_norm: needs blocked maps");
    const int64_t groups = spec.integer("groups");
    if (groups < 1 || out.c % groups != 0) throw std::invalid_argument("group_norm: groups must divide the channels");
    group_ = static_cast<int>(out.c / groups);
    eps_ = spec.number("eps");
    // Blocks that share no group with other blocks are one thread's work.
    const int V = out.lanes;
    unit_ = group_ % V == 0 ? group_ / V : V % group_ == 0 ? 1 : out.blocks;
    const size_t floats = static_cast<size_t>(out.blocks) * static_cast<size_t>(V);
    weight_ = Buffer(floats);
    bias_ = Buffer(floats);
    for (int c = 0; c < out.c; ++c) {
      weight_.data()[c] = spec.has_weight("weight") ? spec.weight("weight").data[c] : 1.0f;
      bias_.data()[c] = spec.has_weight("bias") ? spec.weight("bias").data[c] : 0.0f;
    }
  }
  std::string kernel() const override { return "group_norm_f32"; }
  size_t weight_bytes() const override { return (weight_.size() + bias_.size()) * sizeof(float); }
  // Per thread: one double, one mean and one row sum for every channel of the unit.
  size_t scratch_floats(int threads) const override { return static_cast<size_t>(threads) * thread_floats(); }

  void run(const RunContext& ctx) const override {
    const int V = out.lanes, units = (out.blocks + unit_ - 1) / unit_;
    double* sums = reinterpret_cast<double*>(ctx.scratch + static_cast<size_t>(ctx.thread) * thread_floats());
    float* means = reinterpret_cast<float*>(sums + unit_ * V);
    float* rows = means + unit_ * V;
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * units, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int n = static_cast<int>(i / units), first = static_cast<int>(i % units) * unit_;
      const int blocks = std::min(unit_, out.blocks - first);
      const int channels = std::min(blocks * V, out.c - first * V);
      std::fill(means, means + blocks * V, 0.0f);
      std::fill(sums, sums + blocks * V, 0.0);
      for (int b = 0; b < blocks; ++b) sum_rows<false>(ctx, n, first + b, means + b * V, rows, sums + b * V);
      share(sums, channels);
      for (int c = 0; c < channels; ++c) means[c] = static_cast<float>(sums[c]);
      std::fill(sums, sums + blocks * V, 0.0);
      for (int b = 0; b < blocks; ++b) sum_rows<true>(ctx, n, first + b, means + b * V, rows, sums + b * V);
      share(sums, channels);
      for (int b = 0; b < blocks; ++b) write(ctx, n, first + b, means + b * V, sums + b * V);
    }
  }

 private:
  size_t thread_floats() const { return static_cast<size_t>(unit_) * static_cast<size_t>(out.lanes) * 3 + 64 + 16; }

  // Adds x - mean, or its square, over a plane to `total`, lane by lane.
  template <bool kSquare>
  void sum_rows(const RunContext& ctx, int n, int block, const float* mean, float* row, double* total) const {
    const int V = out.lanes;
    const float* plane = ctx.at(in_) + n * in_.image + block * in_.plane;
    for (int y = 0; y < out.h; ++y) {
      const float* p = plane + y * in_.row;
      std::fill(row, row + V, 0.0f);
      for (int x = 0; x < out.w; ++x, p += V) {
        for (int l = 0; l < V; ++l) {
          const float v = p[l] - mean[l];
          row[l] += kSquare ? v * v : v;
        }
      }
      for (int l = 0; l < V; ++l) total[l] += static_cast<double>(row[l]);
    }
  }

  // Turns sums per channel into means over each channel's group.
  void share(double* sums, int channels) const {
    const double count = static_cast<double>(group_) * out.h * out.w;
    for (int c = 0; c < channels; c += group_) {
      double total = 0;
      for (int j = 0; j < group_; ++j) total += sums[c + j];
      std::fill(sums + c, sums + c + group_, total / count);
    }
  }

  void write(const RunContext& ctx, int n, int block, const float* mean, const double* variance) const {
    const int V = out.lanes, live = std::min(V, out.c - block * V);
    float scale[kMaxLanes] = {}, shift[kMaxLanes] = {};
    for (int l = 0; l < live; ++l) {
      scale[l] = static_cast<float>(weight_.data()[block * V + l] / std::sqrt(variance[l] + eps_));
      shift[l] = bias_.data()[block * V + l];
    }
    const float* from = ctx.at(in_) + n * in_.image + block * in_.plane;
    float* to = ctx.at(out) + n * out.image + block * out.plane;
    for (int y = 0; y < out.h; ++y) {
      const float* p = from + y * in_.row;
      float* q = to + y * out.row;
      for (int x = 0; x < out.w; ++x, p += V, q += V) {
        for (int l = 0; l < V; ++l) q[l] = (p[l] - mean[l]) * scale[l] + shift[l];
      }
      clear_dead_lanes(out, block, q - out.w * static_cast<ptrdiff_t>(V), out.w);
    }
  }

  static constexpr int kMaxLanes = 16;
  Tensor in_;
  Buffer weight_, bias_;
  int group_ = 1, unit_ = 1;
  double eps_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_group_norm(const StepSpec& spec) { return std::make_unique<GroupNormStep>(spec); }

}  // namespace fastcnn
