// Convolution by FFT, a row of the spectra at a time.
//
// A tile of t points has some 3/2 t^2 products for every pair of channels: V and M of all frequencies leave L2 with the
// first dozen tiles, and every page they lie on is touched for one line. So the transforms are taken apart. Threads
// share out the columns of all tiles, whose spectra are P; then the t/2 rows, of which each is transformed, multiplied
// and transformed back while V and M of its frequencies, 2/t of all, are mostly in L2; of its inverse, Q keeps only the
// columns of the output; then the columns of the outputs. P, Q and the weights go through outer caches, and no two
// threads read the same of them.
//
//   P[row][cb][tile][t][2][V]    <- columns of x
//   V[freq][group][cb][tile][V]  <- row of P
//   M[freq][tile][panel]         <- V . U
//   Q[row][fb][tile][m][2][V]    <- row of M, m rounded up to even
//   out                          <- columns of Q
//
// `chunk`: tiles in V and M at once. Split "own_rows": every thread takes tiles of its own through all rows, a chunk at
// a time. It reads all the weights, once for each chunk, but P and Q of a chunk are near and no other core's.
#include <algorithm>

#include "kernels/fft/fft.h"
#include "runtime/steps/tile_weights.h"
#include "runtime/steps/tiling.h"

namespace fastcnn {

std::unique_ptr<Step> make_fft_rows(const StepSpec& spec);

namespace {

constexpr ptrdiff_t kRowSkew = 80;  // floats: keeps strides of rows, several lines of each, off powers of two
constexpr ptrdiff_t kMapsFloats = ptrdiff_t{1} << 21;  // that P and Q may have, if a chunk does not need more

class FftRowsStep final : public Step {
 public:
  explicit FftRowsStep(const StepSpec& spec)
      : tiling_(spec),
        blocks_(tiling_.blocks()),
        t_(tiling_.form->t_y),
        kernels_(tile_kernels(spec.isa)),
        halves_(fft_halves(spec.isa, t_)),
        lanes_(kernels_.lanes),
        groups_(spec, tiling_, kernels_),
        weights_(spec, tiling_, kernels_),
        v_stride_(groups_.v_stride()),
        m_stride_(groups_.m_stride()),
        own_(spec.word("split", "rows") == "own_rows") {
    out = spec.out;
    cols_ = (tiling_.m_x + 1) / 2 * 2;
    p_tile_ = 2 * static_cast<ptrdiff_t>(t_) * lanes_;
    q_tile_ = 2 * static_cast<ptrdiff_t>(cols_) * lanes_;
    const ptrdiff_t tile = t_ / 2 * (blocks_ * p_tile_ + out.blocks * q_tile_);
    const ptrdiff_t fit = own_ ? 1 : std::max<ptrdiff_t>(1, kMapsFloats / (tile * groups_.chunk()));
    span_ = static_cast<int>(std::min<ptrdiff_t>(fit * groups_.chunk(), tiling_.count()));
    p_row_ = p_tile_ * blocks_ * span_ + kRowSkew;
    q_row_ = q_tile_ * out.blocks * span_ + kRowSkew;
  }

  std::string kernel() const override {
    return std::string(own_ ? "fft_own_rows" : "fft_rows")
        .append(weights_.stored())
        .append(tiling_.name())
        .append("_")
        .append(isa_name(kernels_.isa));
  }
  size_t weight_bytes() const override { return weights_.bytes() + tiling_.epilogue.bytes(); }
  size_t scratch_floats(int threads) const override {
    const int maps = own_ ? threads : 1;
    return static_cast<size_t>(maps * maps_floats() + threads * row_floats());
  }
  Region opening(int thread, int threads) const override {
    int64_t begin, end;
    RunContext::part_of(thread, threads, own_ ? tiling_.count() : t_ / 2, begin, end, 1);
    return begin >= end ? Region{} : weights_.matrix(0, fft_row_freq(t_, own_ ? 0 : static_cast<int>(begin)));
  }

  void run(const RunContext& ctx) const override {
    int64_t begin = 0, end = tiling_.count();
    RunContext team = ctx;  // of those that share the tiles
    if (own_) {
      ctx.part(tiling_.count(), begin, end);
      team.thread = 0;
      team.threads = 1;
      team.barrier = nullptr;
      team.scratch += ctx.thread * (maps_floats() + row_floats());
    }
    const int64_t tiles = end - begin, spans = (tiles + span_ - 1) / span_;
    for (int64_t s = 0; s < spans; ++s) {
      const int t0 = static_cast<int>(begin + tiles * s / spans);
      const int count = static_cast<int>(begin + tiles * (s + 1) / spans) - t0;
      columns(team, t0, count);
      team.sync();
      rows(team, count, s + 1 < spans ? opening(ctx.thread, ctx.threads) : after(ctx));
      team.sync();
      columns_back(team, t0, count);
    }
  }

 private:
  float* p(const RunContext& ctx) const { return ctx.scratch; }
  float* q(const RunContext& ctx) const { return ctx.scratch + t_ / 2 * p_row_; }
  ptrdiff_t maps_floats() const { return t_ / 2 * (p_row_ + q_row_); }
  // V and M of a row.
  ptrdiff_t row_floats() const { return 3 * t_ * (v_stride_ + m_stride_); }

  // Tiles t0 ... of the span, in P.
  void columns(const RunContext& ctx, int t0, int tiles) const {
    int64_t begin, end;
    ctx.part(int64_t{blocks_} * tiles, begin, end);
    for (int64_t i = begin; i < end;) {
      const int cb = static_cast<int>(i / tiles), first = static_cast<int>(i % tiles);
      const int last = static_cast<int>(std::min<int64_t>(tiles, first + end - i));
      Tiling::Cursor at(tiling_, t0 + first);
      for (int k = first; k < last; ++k, at.next()) {
        TileInput tile = tiling_.input(ctx, at, cb);
        tile.out = p(ctx) + (static_cast<ptrdiff_t>(cb) * span_ + k) * p_tile_;
        tile.freq_stride = p_row_;
        halves_.columns(tile);
      }
      i += last - first;
    }
  }

  // This thread's rows of P, by way of V and M, in Q. `after_rows`: what is read after them.
  void rows(const RunContext& ctx, int tiles, Region after_rows) const {
    float* const v = q(ctx) + t_ / 2 * q_row_ + ctx.thread * row_floats();
    float* const m = v + 3 * t_ * v_stride_;
    int64_t row0, row1;
    ctx.part(t_ / 2, row0, row1);
    const int64_t chunks = groups_.chunks(tiles);
    FftRow f;
    TileProduct product;
    product.group_stride = groups_.stride();
    for (int64_t row = row0; row < row1; ++row) {
      f.row = static_cast<int>(row);
      const int freq0 = fft_row_freq(t_, f.row), freqs = fft_row_freq(t_, f.row + 1) - freq0;
      for (int64_t c = 0; c < chunks; ++c) {
        const int k0 = static_cast<int>(groups_.cut(tiles, c, chunks));
        const int k1 = static_cast<int>(groups_.cut(tiles, c + 1, chunks));
        product.tiles = k1 - k0;
        product.group = groups_.group_of(product.tiles);
        f.freq_stride = v_stride_;
        for (int cb = 0; cb < blocks_; ++cb) {
          f.points = p(ctx) + row * p_row_ + (static_cast<ptrdiff_t>(cb) * span_ + k0) * p_tile_;
          for (int k = 0; k < product.tiles; ++k, f.points += p_tile_) {
            f.products = v + groups_.at(k, cb, product.group);
            halves_.row(f);
          }
        }
        // What is read when this row's or this chunk's products are done.
        const bool last = row + 1 == row1 && c + 1 == chunks;
        const Region next = last ? after_rows : weights_.matrix(0, c + 1 < chunks ? freq0 : freq0 + freqs);
        f.freq_stride = m_stride_;
        f.cols = cols_;
        for (int b = 0; b < out.blocks;) {
          const int width = weights_.width(b);
          for (int i = 0; i < freqs; ++i) {
            product.v = v + i * v_stride_;
            product.m = m + i * m_stride_;
            weights_.product(product, b, freq0 + i,
                             i + 1 < freqs            ? weights_.matrix(b, freq0 + i + 1)
                             : b + width < out.blocks ? weights_.matrix(b + width, freq0)
                                                      : next);
          }
          for (int j = 0; j < width; ++j) {
            f.points = q(ctx) + row * q_row_ + (static_cast<ptrdiff_t>(b + j) * span_ + k0) * q_tile_;
            for (int k = 0; k < product.tiles; ++k, f.points += q_tile_) {
              f.products = m + (static_cast<ptrdiff_t>(k) * width + j) * lanes_;
              halves_.row_back(f);
            }
          }
          b += width;
        }
      }
    }
  }

  void columns_back(const RunContext& ctx, int t0, int tiles) const {
    int64_t begin, end;
    ctx.part(int64_t{out.blocks} * tiles, begin, end);
    for (int64_t i = begin; i < end;) {
      const int fb = static_cast<int>(i / tiles), first = static_cast<int>(i % tiles);
      const int last = static_cast<int>(std::min<int64_t>(tiles, first + end - i));
      Tiling::Cursor at(tiling_, t0 + first);
      for (int k = first; k < last; ++k, at.next()) {
        TileOutput o = tiling_.output(ctx, at, fb);
        o.in = q(ctx) + (static_cast<ptrdiff_t>(fb) * span_ + k) * q_tile_;
        o.freq_stride = q_row_;
        halves_.columns_back(o);
      }
      i += last - first;
    }
  }

  Tiling tiling_;
  int blocks_;  // of input channels and phases of the stride
  int t_;
  const TileKernels& kernels_;
  const FftHalves& halves_;
  int lanes_;
  TileGroups groups_;
  TileWeights weights_;
  ptrdiff_t v_stride_, m_stride_;
  bool own_;
  int span_ = 1, cols_ = 0;  // tiles in P and Q; columns of Q, an even number of them
  ptrdiff_t p_tile_ = 0, p_row_ = 0, q_tile_ = 0, q_row_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_fft_rows(const StepSpec& spec) { return std::make_unique<FftRowsStep>(spec); }

}  // namespace fastcnn
