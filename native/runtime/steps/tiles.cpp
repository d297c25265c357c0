// Convolution by transformed tiles (kernels/tiles), fused per chunk of tiles so that V and M stay in cache.
//
// op "winograd": F(m, r) along both axes, or along the one that has more than one tap. op "fft": tiles of `tile` points
// along both axes, for any kernel that fits.
//
// split "tiles": every thread has its own tiles and its own V and M; no synchronisation.
// split "panels": threads transform shares of the input into one V, wait, then take shares of the output channels; for
// small maps, where the weights are what costs and each core should read only half of them.
//
// weights "i16": spectra in 16 bits, widened in registers; for layers that wait for their weights.
#include "kernels/tiles/tiles.h"

#include <algorithm>

#include "runtime/steps/rounding.h"
#include "runtime/steps/tiling.h"

namespace fastcnn {
namespace {

constexpr int kSkew = 16;  // floats: keeps frequency strides off powers of two

class TileStep final : public Step {
 public:
  explicit TileStep(const StepSpec& spec)
      : tiling_(spec),
        blocks_(tiling_.blocks()),
        form_(*tiling_.form),
        kernels_(tile_kernels(spec.isa)),
        op_(spec.op),
        lanes_(kernels_.lanes) {
    out = spec.out;
    chunk_ = static_cast<int>(spec.integer("chunk"));
    split_panels_ = spec.word("split", "tiles") == "panels";
    i16_ = spec.word("weights", "f32") == "i16";
    if (chunk_ < 1) throw std::invalid_argument(spec.op + ": chunk must be positive");
    chunk_ = (chunk_ + kernels_.tile - 1) / kernels_.tile * kernels_.tile;  // whole groups, as cut() makes them
    pack(spec.weight("weight"));
    group_stride_ = static_cast<ptrdiff_t>(blocks_) * kernels_.tile * lanes_;
    v_stride_ = chunk_ / kernels_.tile * group_stride_ + kSkew;
    m_stride_ = static_cast<ptrdiff_t>(chunk_) * kernels_.panel * lanes_ + kSkew;
  }

  std::string kernel() const override {
    return std::string(op_)
        .append(i16_ ? "_i16_" : "_f32_")
        .append(tiling_.name())
        .append("_")
        .append(isa_name(kernels_.isa));
  }
  size_t weight_bytes() const override {
    return weights_.size() * sizeof(float) + rounded_.bytes() + tiling_.epilogue.bytes();
  }
  size_t scratch_floats(int threads) const override {
    const size_t freqs = static_cast<size_t>(form_.freqs);
    const size_t v = freqs * static_cast<size_t>(v_stride_);
    return (split_panels_ ? v : v * static_cast<size_t>(threads)) + own_floats() * static_cast<size_t>(threads);
  }

  void run(const RunContext& ctx) const override {
    const size_t freqs = static_cast<size_t>(form_.freqs);
    const size_t v_size = freqs * static_cast<size_t>(v_stride_), own = own_floats();
    const int tiles = tiling_.count();
    if (!split_panels_) {
      float* v = ctx.scratch + static_cast<size_t>(ctx.thread) * (v_size + own);
      float* m = v + v_size;
      int64_t begin, end;
      ctx.part(tiles, begin, end);
      const int64_t chunks = (end - begin + chunk_ - 1) / chunk_;
      for (int64_t k = 0; k < chunks; ++k) {
        const int t0 = static_cast<int>(begin + cut(end - begin, k, chunks));
        const int t1 = static_cast<int>(begin + cut(end - begin, k + 1, chunks));
        for (int cb = 0; cb < blocks_; ++cb) transform(ctx, v, m, t0, t1, cb);
        multiply(ctx, v, m, t0, t1, 0, out.blocks, k + 1 < chunks ? opening(ctx.thread, ctx.threads) : after(ctx));
      }
      return;
    }
    float* v = ctx.scratch;
    float* m = v + v_size + static_cast<size_t>(ctx.thread) * own;
    int64_t block0, block1;
    ctx.part(out.blocks, block0, block1, kernels_.panel);
    const int chunks = (tiles + chunk_ - 1) / chunk_;
    for (int k = 0; k < chunks; ++k) {
      const int t0 = static_cast<int>(cut(tiles, k, chunks));
      const int t1 = static_cast<int>(cut(tiles, k + 1, chunks));
      int64_t cb0, cb1;
      ctx.part(blocks_, cb0, cb1);
      for (int64_t cb = cb0; cb < cb1; ++cb) transform(ctx, v, m, t0, t1, static_cast<int>(cb));
      ctx.sync();
      multiply(ctx, v, m, t0, t1, static_cast<int>(block0), static_cast<int>(block1),
               k + 1 < chunks ? opening(ctx.thread, ctx.threads) : after(ctx));
      if (k + 1 < chunks) ctx.sync();  // V is about to be overwritten
    }
  }

  Region opening(int thread, int threads) const override {
    int64_t block = 0, stop = out.blocks;
    if (split_panels_) RunContext::part_of(thread, threads, out.blocks, block, stop, kernels_.panel);
    if (block >= stop) return {};
    const size_t column = static_cast<size_t>(block) * lanes_ * static_cast<size_t>(form_.freqs);
    const ptrdiff_t rows = static_cast<ptrdiff_t>(blocks_) * lanes_;
    const ptrdiff_t count = rows * std::min<int64_t>(kernels_.panel, stop - block) * lanes_;
    if (i16_) return {rounded_.codes(column), 2 * count};
    return {weights_.data() + rows * static_cast<ptrdiff_t>(column), 4 * count};
  }

 private:
  // M and workspace: what each thread has for itself.
  size_t own_floats() const { return m_floats() + form_.work; }
  size_t m_floats() const { return static_cast<size_t>(form_.freqs) * static_cast<size_t>(m_stride_); }

  // [panel][frequency][C][panel width]
  void pack(const FloatArray& w) {
    const int V = lanes_;
    const size_t freqs = static_cast<size_t>(form_.freqs), rows = static_cast<size_t>(blocks_) * V;
    Buffer panel, work(tiling_.spectra_floats());
    if (i16_) {
      rounded_ = RoundedWeights(rows, freqs * out.blocks * V);
      panel = Buffer(freqs * rows * kernels_.panel * V);
    } else {
      weights_ = Buffer(freqs * rows * out.blocks * V);
    }
    for (int b = 0; b < out.blocks; b += kernels_.panel) {
      const int vectors = std::min(kernels_.panel, out.blocks - b);
      const size_t width = static_cast<size_t>(vectors) * V;
      const size_t column = freqs * b * V;  // of the panel's first matrix
      if (i16_) std::fill(panel.data(), panel.data() + panel.size(), 0.0f);
      float* to = i16_ ? panel.data() : weights_.data() + rows * column;
      for (int j = 0; j < vectors; ++j) {
        for (int c = 0; c < tiling_.in.c; ++c) {
          const int first = (b + j) * V, phases = tiling_.phases();
          const auto filter = [&](int k) {
            return w.data + (static_cast<size_t>(first + k) * w.shape[1] + c) * w.shape[2] * w.shape[3];
          };
          for (int phase = 0; phase < phases; ++phase) {
            const size_t row = (static_cast<size_t>(c / V) * phases + phase) * V + c % V;
            tiling_.spectra(filter, std::min(V, out.c - first), phase, work.data(),
                            to + row * width + static_cast<size_t>(j) * V, rows * width);
          }
        }
      }
      for (size_t q = 0; i16_ && q < freqs; ++q) {
        rounded_.round(to + q * rows * width, column + q * width, width);
      }
    }
  }

  // Where chunk k of `chunks` begins: equal chunks rather than full ones and a rest, in whole register tiles.
  int64_t cut(int64_t count, int64_t k, int64_t chunks) const {
    const int64_t units = (count + kernels_.tile - 1) / kernels_.tile;
    return std::min(count, units * k / chunks * kernels_.tile);
  }

  // Tiles of a group: groups of equal size rather than full ones and a small rest, which would wait for its sums.
  int group_of(int tiles) const {
    const int groups = (tiles + kernels_.tile - 1) / kernels_.tile;
    return (tiles + groups - 1) / groups;
  }

  // Input tiles t0 ... t1 of one channel block into V.
  void transform(const RunContext& ctx, float* v, float* own, int t0, int t1, int cb) const {
    const int V = lanes_, group = group_of(t1 - t0);
    Tiling::Cursor at(tiling_, t0);
    for (int k = 0; k < t1 - t0; ++k, at.next()) {
      TileInput tile = tiling_.input(ctx, at, cb);
      tile.out = v + k / group * group_stride_ + (static_cast<ptrdiff_t>(cb) * kernels_.tile + k % group) * V;
      tile.freq_stride = v_stride_;
      tile.work = own + m_floats();
      form_.input(tile);
    }
  }

  // Products of all frequencies and inverse transforms, for output channel blocks block0 ... block1.
  // `next`: what is read after that.
  void multiply(const RunContext& ctx, const float* v, float* mbuf, int t0, int t1, int block0, int block1,
                Region next) const {
    const int freqs = form_.freqs, V = lanes_;
    const ptrdiff_t steps = static_cast<ptrdiff_t>(blocks_) * V;
    for (int b = block0; b < block1;) {
      const int width = std::min(kernels_.panel, out.blocks - b);
      TileProduct p;
      p.group_stride = group_stride_;
      p.tiles = t1 - t0;
      p.group = group_of(p.tiles);
      p.blocks = blocks_;
      p.width = width;
      const size_t column = static_cast<size_t>(b) * V * freqs;
      for (int q = 0; q < freqs; ++q) {
        p.m = mbuf + q * m_stride_;
        const bool last = q + 1 == freqs && b + width == block1;
        if (i16_) {
          const size_t matrix = column + static_cast<size_t>(q) * width * V;
          const ptrdiff_t size = steps * width * V;
          p.v = v + q * v_stride_;
          p.codes = rounded_.codes(matrix);
          p.scales = rounded_.scales(matrix);
          p.next = last ? next : Region{p.codes + size, size * ptrdiff_t{sizeof(int16_t)}};
          kernels_.product(p);
        } else {
          p.u = weights_.data() + steps * (static_cast<ptrdiff_t>(column) + q * width * V);
          const Region following = last ? next : Region{p.u + steps * width * V, 4 * steps * width * V};
          // Long sums in runs, which round less than one sum over all channels.
          const int runs = static_cast<int>((int64_t{blocks_} * V + kSumTerms - 1) / kSumTerms);
          for (int k = 0; k < runs; ++k) {
            const int cb = static_cast<int>(int64_t{blocks_} * k / runs);
            p.blocks = static_cast<int>(int64_t{blocks_} * (k + 1) / runs) - cb;
            p.add = k > 0;
            p.v = v + q * v_stride_ + static_cast<ptrdiff_t>(cb) * kernels_.tile * V;
            p.next = k + 1 == runs ? following : Region{p.u + p.blocks * V * width * V, 4 * p.blocks * V * width * V};
            kernels_.product(p);
            p.u += static_cast<ptrdiff_t>(p.blocks) * V * width * V;
          }
        }
      }
      Tiling::Cursor at(tiling_, t0);
      for (int k = 0; k < t1 - t0; ++k, at.next()) {
        for (int j = 0; j < width; ++j) {
          TileOutput o = tiling_.output(ctx, at, b + j);
          o.in = mbuf + (static_cast<ptrdiff_t>(k) * width + j) * V;
          o.freq_stride = m_stride_;
          o.work = mbuf + m_floats();
          form_.output(o);
        }
      }
      b += width;
    }
  }

  static constexpr int kSumTerms = 256;

  Tiling tiling_;
  int blocks_;  // of input channels and phases of the stride
  const TileForm& form_;
  const TileKernels& kernels_;
  std::string op_;
  int lanes_;
  Buffer weights_;
  RoundedWeights rounded_;
  int chunk_ = 1;
  ptrdiff_t group_stride_ = 0, v_stride_ = 0, m_stride_ = 0;
  bool split_panels_ = false, i16_ = false;
};

}  // namespace

std::unique_ptr<Step> make_tiles(const StepSpec& spec) { return std::make_unique<TileStep>(spec); }

}  // namespace fastcnn
