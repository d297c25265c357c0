// Convolution by transformed tiles (kernels/tiles), fused per chunk of tiles so that V and M stay in cache.
//
// op "winograd": F(m, r) along both axes, or along the one that has more than one tap. op "fft": tiles of `tile` points
// along both axes, for any kernel that fits.
//
// split "tiles": every thread has its own tiles and its own V and M; no synchronisation.
// split "panels": threads transform shares of the input into one V, wait, then take shares of the output channels; for
// small maps, where the weights are what costs and each core should read only half of them.
// splits "rows" and "own_rows", of op "fft" alone: steps/fft_rows.cpp.
//
// weights "i16": spectra in 16 bits, widened in registers; for layers that wait for their weights.
#include "kernels/tiles/tiles.h"

#include "runtime/steps/tile_weights.h"
#include "runtime/steps/tiling.h"

namespace fastcnn {

std::unique_ptr<Step> make_fft_rows(const StepSpec&);

namespace {

class TileStep final : public Step {
 public:
  explicit TileStep(const StepSpec& spec)
      : tiling_(spec),
        blocks_(tiling_.blocks()),
        form_(*tiling_.form),
        kernels_(tile_kernels(spec.isa)),
        op_(spec.op),
        lanes_(kernels_.lanes),
        groups_(spec, tiling_, kernels_),
        weights_(spec, tiling_, kernels_),
        v_stride_(groups_.v_stride()),
        m_stride_(groups_.m_stride()),
        split_panels_(spec.word("split", "tiles") == "panels") {
    out = spec.out;
  }

  std::string kernel() const override {
    return std::string(op_).append(weights_.stored()).append(tiling_.name()).append("_").append(isa_name(kernels_.isa));
  }
  size_t weight_bytes() const override { return weights_.bytes() + tiling_.epilogue.bytes(); }
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
      const int64_t chunks = groups_.chunks(end - begin);
      for (int64_t k = 0; k < chunks; ++k) {
        const int t0 = static_cast<int>(begin + groups_.cut(end - begin, k, chunks));
        const int t1 = static_cast<int>(begin + groups_.cut(end - begin, k + 1, chunks));
        for (int cb = 0; cb < blocks_; ++cb) transform(ctx, v, m, t0, t1, cb);
        multiply(ctx, v, m, t0, t1, 0, out.blocks, k + 1 < chunks ? opening(ctx.thread, ctx.threads) : after(ctx));
      }
      return;
    }
    float* v = ctx.scratch;
    float* m = v + v_size + static_cast<size_t>(ctx.thread) * own;
    int64_t block0, block1;
    ctx.part(out.blocks, block0, block1, kernels_.panel);
    const int64_t chunks = groups_.chunks(tiles);
    for (int64_t k = 0; k < chunks; ++k) {
      const int t0 = static_cast<int>(groups_.cut(tiles, k, chunks));
      const int t1 = static_cast<int>(groups_.cut(tiles, k + 1, chunks));
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
    return block >= stop ? Region{} : weights_.matrix(static_cast<int>(block), 0);
  }

 private:
  // M and workspace: what each thread has for itself.
  size_t own_floats() const { return m_floats() + form_.work; }
  size_t m_floats() const { return static_cast<size_t>(form_.freqs) * static_cast<size_t>(m_stride_); }

  // Input tiles t0 ... t1 of one channel block into V.
  void transform(const RunContext& ctx, float* v, float* own, int t0, int t1, int cb) const {
    const int group = groups_.group_of(t1 - t0);
    Tiling::Cursor at(tiling_, t0);
    for (int k = 0; k < t1 - t0; ++k, at.next()) {
      TileInput tile = tiling_.input(ctx, at, cb);
      tile.out = v + groups_.at(k, cb, group);
      tile.freq_stride = v_stride_;
      tile.work = own + m_floats();
      form_.input(tile);
    }
  }

  // Products of all frequencies and inverse transforms, for output channel blocks block0 ... block1.
  // `next`: what is read after that.
  void multiply(const RunContext& ctx, const float* v, float* mbuf, int t0, int t1, int block0, int block1,
                Region next) const {
    TileProduct p;
    p.group_stride = groups_.stride();
    p.tiles = t1 - t0;
    p.group = groups_.group_of(p.tiles);
    for (int b = block0; b < block1;) {
      const int width = weights_.width(b);
      for (int q = 0; q < form_.freqs; ++q) {
        p.v = v + q * v_stride_;
        p.m = mbuf + q * m_stride_;
        const bool end = q + 1 == form_.freqs;
        weights_.product(p, b, q,
                         !end                 ? weights_.matrix(b, q + 1)
                         : b + width < block1 ? weights_.matrix(b + width, 0)
                                              : next);
      }
      Tiling::Cursor at(tiling_, t0);
      for (int k = 0; k < t1 - t0; ++k, at.next()) {
        for (int j = 0; j < width; ++j) {
          TileOutput o = tiling_.output(ctx, at, b + j);
          o.in = mbuf + (static_cast<ptrdiff_t>(k) * width + j) * lanes_;
          o.freq_stride = m_stride_;
          o.work = mbuf + m_floats();
          form_.output(o);
        }
      }
      b += width;
    }
  }

  Tiling tiling_;
  int blocks_;  // of input channels and phases of the stride
  const TileForm& form_;
  const TileKernels& kernels_;
  std::string op_;
  int lanes_;
  TileGroups groups_;
  TileWeights weights_;
  ptrdiff_t v_stride_, m_stride_;
  bool split_panels_;
};

}  // namespace

std::unique_ptr<Step> make_tiles(const StepSpec& spec) {
  const std::string split = spec.word("split", "tiles");
  if (spec.op == "fft" && (split == "rows" || split == "own_rows")) return make_fft_rows(spec);
  return std::make_unique<TileStep>(spec);
}

}  // namespace fastcnn
