// Stride-1 convolution by Winograd tiles, fused per chunk of tiles so that V and M stay in cache.
//
// split "tiles": every thread has its own tiles and its own V and M; no synchronisation.
// split "panels": threads transform shares of the input into one V, wait, then take shares of the output channels; for
// small maps, where the weights are what costs and each core should read only half of them.
//
// weights "i16": spectra in 16 bits, expanded a piece at a time into L1; for layers that wait for their weights.
#include <algorithm>

#include "kernels/winograd/winograd.h"
#include "runtime/step.h"
#include "runtime/steps/rounding.h"

namespace fastcnn {
namespace {

constexpr int kSkew = 16;  // floats: keeps frequency strides off powers of two

class WinogradStep final : public Step {
 public:
  explicit WinogradStep(const StepSpec& spec)
      : in_(spec.in.at(0)),
        kernels_(winograd_kernels(spec.isa)),
        unpack_(unpack_kernels(spec.isa)),
        lanes_(kernels_.lanes) {
    out = spec.out;
    const int m = static_cast<int>(spec.integer("m"));
    const FloatArray& w = spec.weight("weight");
    if (w.shape.size() != 4 || w.shape[2] != w.shape[3] || !in_.blocked) {
      throw std::invalid_argument("winograd: needs a square kernel and a blocked input");
    }
    form_ = find_winograd(spec.isa, m, static_cast<int>(w.shape[2]));
    if (form_ == nullptr) {
      throw std::invalid_argument("winograd: there is no form F(" + std::to_string(m) + ", " +
                                  std::to_string(w.shape[2]) + ")");
    }
    epilogue_ = parse_epilogue(spec, out.blocks, lanes_);
    if (epilogue_.has_residual) residual_ = spec.in.at(1);
    chunk_ = static_cast<int>(spec.integer("chunk"));
    split_panels_ = spec.word("split", "tiles") == "panels";
    i16_ = spec.word("weights", "f32") == "i16";
    const auto& padding = spec.list("padding", 4);
    pad_top_ = static_cast<int>(padding[0]);
    pad_left_ = static_cast<int>(padding[1]);
    tiles_y_ = (out.h + m - 1) / m;
    tiles_x_ = (out.w + m - 1) / m;
    if (chunk_ < 1) throw std::invalid_argument("winograd: chunk must be positive");
    chunk_ = (chunk_ + kernels_.tile - 1) / kernels_.tile * kernels_.tile;  // whole groups, as cut() makes them
    pack(w);
    group_stride_ = static_cast<ptrdiff_t>(in_.blocks) * kernels_.tile * lanes_;
    v_stride_ = chunk_ / kernels_.tile * group_stride_ + kSkew;
    m_stride_ = static_cast<ptrdiff_t>(chunk_) * kernels_.panel * lanes_ + kSkew;
  }

  std::string kernel() const override {
    const std::string m = std::to_string(form_->m), r = std::to_string(form_->r);
    return std::string(i16_ ? "winograd_i16_f" : "winograd_f32_f") + m + "x" + m + "k" + r + "x" + r + "_" +
           isa_name(kernels_.isa);
  }
  size_t weight_bytes() const override {
    return weights_.size() * sizeof(float) + rounded_.bytes() + epilogue_.bytes();
  }
  size_t scratch_floats(int threads) const override {
    const size_t freqs = static_cast<size_t>(form_->t) * form_->t;
    const size_t v = freqs * static_cast<size_t>(v_stride_);
    return (split_panels_ ? v : v * static_cast<size_t>(threads)) + own_floats() * static_cast<size_t>(threads);
  }

  void run(const RunContext& ctx) const override {
    const size_t freqs = static_cast<size_t>(form_->t) * form_->t;
    const size_t v_size = freqs * static_cast<size_t>(v_stride_), own = own_floats();
    const int tiles = out.n * tiles_y_ * tiles_x_;
    if (!split_panels_) {
      float* v = ctx.scratch + static_cast<size_t>(ctx.thread) * (v_size + own);
      float* m = v + v_size;
      int64_t begin, end;
      ctx.part(tiles, begin, end);
      const int64_t chunks = (end - begin + chunk_ - 1) / chunk_;
      for (int64_t k = 0; k < chunks; ++k) {
        const int t0 = static_cast<int>(begin + cut(end - begin, k, chunks));
        const int t1 = static_cast<int>(begin + cut(end - begin, k + 1, chunks));
        for (int cb = 0; cb < in_.blocks; ++cb) transform(ctx, v, t0, t1, cb);
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
      ctx.part(in_.blocks, cb0, cb1);
      for (int64_t cb = cb0; cb < cb1; ++cb) transform(ctx, v, t0, t1, static_cast<int>(cb));
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
    const size_t column = static_cast<size_t>(block) * lanes_ * form_->t * form_->t;
    const ptrdiff_t rows = static_cast<ptrdiff_t>(in_.blocks) * lanes_;
    const ptrdiff_t count = rows * std::min<int64_t>(kernels_.panel, stop - block) * lanes_;
    if (i16_) return {rounded_.codes(column), 2 * count};
    return {weights_.data() + rows * static_cast<ptrdiff_t>(column), 4 * count};
  }

 private:
  // M and a piece of expanded weights: what each thread has for itself.
  size_t own_floats() const {
    return static_cast<size_t>(form_->t) * form_->t * static_cast<size_t>(m_stride_) + (i16_ ? kPiece : 0);
  }

  // [panel][frequency][C][panel width]
  void pack(const FloatArray& w) {
    const int V = lanes_, t = form_->t, taps = form_->r * form_->r;
    const int64_t in_c = in_.c, out_c = out.c;
    const size_t freqs = static_cast<size_t>(t) * t, rows = static_cast<size_t>(in_.blocks) * V;
    Buffer panel;
    if (i16_) {
      rounded_ = RoundedWeights(rows, freqs * out.blocks * V);
      panel = Buffer(freqs * rows * kernels_.panel * V);
    } else {
      weights_ = Buffer(freqs * rows * out.blocks * V);
    }
    std::vector<double> u(freqs);
    for (int b = 0; b < out.blocks; b += kernels_.panel) {
      const size_t width = static_cast<size_t>(std::min(kernels_.panel, out.blocks - b)) * V;
      const size_t column = freqs * b * V;  // of the panel's first matrix
      if (i16_) std::fill(panel.data(), panel.data() + panel.size(), 0.0f);
      float* to = i16_ ? panel.data() : weights_.data() + rows * column;
      for (int64_t k = 0; k < static_cast<int64_t>(width) && b * V + k < out_c; ++k) {
        for (int64_t c = 0; c < in_c; ++c) {
          winograd_filter(form_->m, form_->r, w.data + ((b * V + k) * in_c + c) * taps, u.data());
          float* entry = to + static_cast<size_t>(c) * width + k;
          for (size_t q = 0; q < freqs; ++q) entry[q * rows * width] = static_cast<float>(u[q]);
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
  void transform(const RunContext& ctx, float* v, int t0, int t1, int cb) const {
    const int m = form_->m, t = form_->t, V = lanes_, group = group_of(t1 - t0);
    alignas(64) float edge[8 * 8 * 16];
    const float* base = ctx.at(in_) + cb * in_.plane;
    int x = t0 % tiles_x_, y = t0 / tiles_x_ % tiles_y_, n = t0 / tiles_x_ / tiles_y_;
    for (int i = t0; i < t1; ++i) {
      const int k = i - t0;
      float* to = v + k / group * group_stride_ + (cb * kernels_.tile + k % group) * V;
      const int iy = y * m - pad_top_, ix = x * m - pad_left_;
      const float* from = base + n * in_.image + iy * in_.row + ix * V;
      if (iy >= -in_.top && ix >= -in_.left && iy + t <= in_.h + in_.bottom && ix + t <= in_.w + in_.right) {
        form_->input(from, in_.row, V, to, v_stride_);
      } else {
        // The tile hangs over the buffer: copy what lies in the map, zeros around it.
        std::memset(edge, 0, sizeof(float) * static_cast<size_t>(t * t * V));
        const int y0 = std::max(0, -iy), y1 = std::min(t, in_.h - iy);
        const int x0 = std::max(0, -ix), x1 = std::min(t, in_.w - ix);
        for (int r = y0; r < y1 && x1 > x0; ++r) {
          std::memcpy(edge + (r * t + x0) * V, from + r * in_.row + x0 * V,
                      sizeof(float) * static_cast<size_t>((x1 - x0) * V));
        }
        form_->input(edge, static_cast<ptrdiff_t>(t) * V, V, to, v_stride_);
      }
      if (++x == tiles_x_) {
        x = 0;
        if (++y == tiles_y_) y = 0, ++n;
      }
    }
  }

  // Products of all frequencies and inverse transforms, for output channel blocks block0 ... block1.
  // `next`: what is read after that.
  void multiply(const RunContext& ctx, const float* v, float* mbuf, int t0, int t1, int block0, int block1,
                Region next) const {
    const int m = form_->m, freqs = form_->t * form_->t, V = lanes_;
    const ptrdiff_t steps = static_cast<ptrdiff_t>(in_.blocks) * V;
    const float* out_base = ctx.at(out);
    const float* res_base = epilogue_.has_residual ? ctx.at(residual_) : nullptr;
    for (int b = block0; b < block1;) {
      const int width = std::min(kernels_.panel, out.blocks - b);
      WinogradProduct p;
      p.group_stride = group_stride_;
      p.tiles = t1 - t0;
      p.group = group_of(p.tiles);
      p.blocks = in_.blocks;
      p.width = width;
      const size_t column = static_cast<size_t>(b) * V * freqs;
      for (int q = 0; q < freqs; ++q) {
        p.m = mbuf + q * m_stride_;
        if (i16_) {
          float* piece = mbuf + freqs * m_stride_;
          const int blocks = std::max(1, kPiece / (V * width * V));
          for (int cb = 0; cb < in_.blocks; cb += blocks) {
            p.blocks = std::min(blocks, in_.blocks - cb);
            p.add = cb > 0;
            rounded_.expand(unpack_, column + static_cast<size_t>(q) * width * V, width, cb * V, (cb + p.blocks) * V,
                            piece);
            p.v = v + q * v_stride_ + static_cast<ptrdiff_t>(cb) * kernels_.tile * V;
            p.u = piece;
            kernels_.product(p);
          }
        } else {
          p.v = v + q * v_stride_;
          p.u = weights_.data() + steps * (static_cast<ptrdiff_t>(column) + q * width * V);
          p.next = {p.u + steps * width * V, 4 * steps * width * V};
          if (q + 1 == freqs && b + width == block1) p.next = next;
          kernels_.product(p);
        }
      }
      WinogradOutput o;
      o.row = out.row;
      o.pixel = V;
      o.res_row = residual_.row;
      o.res_pixel = V;
      o.act = &epilogue_.act;
      o.act_before_residual = epilogue_.act_before_residual;
      int x = t0 % tiles_x_, y = t0 / tiles_x_ % tiles_y_, n = t0 / tiles_x_ / tiles_y_;
      for (int i = t0; i < t1; ++i) {
        o.rows = std::min(m, out.h - y * m);
        o.cols = std::min(m, out.w - x * m);
        for (int j = 0; j < width; ++j) {
          const ptrdiff_t block = b + j;
          o.out = const_cast<float*>(out_base) + n * out.image + block * out.plane + y * m * out.row + x * m * V;
          o.residual = res_base == nullptr ? nullptr
                                           : res_base + n * residual_.image + block * residual_.plane +
                                                 y * m * residual_.row + x * m * V;
          o.bias = epilogue_.bias.size() != 0 ? epilogue_.bias.data() + block * V : nullptr;
          o.slope = epilogue_.act.slope != nullptr ? epilogue_.act.slope + block * V : nullptr;
          form_->output(mbuf + (static_cast<ptrdiff_t>(i - t0) * width + j) * V, m_stride_, o);
        }
        if (++x == tiles_x_) {
          x = 0;
          if (++y == tiles_y_) y = 0, ++n;
        }
      }
      b += width;
    }
  }

  static constexpr int kPiece = 4096;  // floats: half of a 32 KiB L1

  Tensor in_, residual_;
  const WinogradKernels& kernels_;
  const UnpackKernels& unpack_;
  const WinogradKernel* form_ = nullptr;
  int lanes_;
  Epilogue epilogue_;
  Buffer weights_;
  RoundedWeights rounded_;
  int chunk_ = 1, pad_top_ = 0, pad_left_ = 0, tiles_y_ = 0, tiles_x_ = 0;
  ptrdiff_t group_stride_ = 0, v_stride_ = 0, m_stride_ = 0;
  bool split_panels_ = false, i16_ = false;
};

}  // namespace

std::unique_ptr<Step> make_winograd(const StepSpec& spec) { return std::make_unique<WinogradStep>(spec); }

}  // namespace fastcnn
