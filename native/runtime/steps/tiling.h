// How the tiles of a form cover a map, for the steps that run it.
#pragma once

#include <algorithm>

#include "kernels/fft/fft.h"
#include "kernels/winograd/winograd.h"
#include "runtime/step.h"

namespace fastcnn {

class Tiling {
 public:
  // The form that the record names for its weight: op "winograd" by `m`, the others by `tile`.
  explicit Tiling(const StepSpec& spec) : in(spec.in.at(0)), out(spec.out) {
    const FloatArray& w = spec.weight("weight");
    if (w.shape.size() != 4 || !in.blocked) throw std::invalid_argument(spec.op + ": needs a blocked input");
    kh = static_cast<int>(w.shape[2]), kw = static_cast<int>(w.shape[3]);
    const std::string kernel = std::to_string(kh) + " x " + std::to_string(kw);
    if (spec.op == "winograd") {
      const int m = static_cast<int>(spec.integer("m"));
      winograd = find_winograd(spec.isa, m, kh, kw);
      if (winograd == nullptr) {
        throw std::invalid_argument("winograd: there is no form of m = " + std::to_string(m) + " for kernels of " +
                                    kernel);
      }
      form = &winograd->form;
    } else {
      const int tile = static_cast<int>(spec.integer("tile"));
      form = find_fft(spec.isa, tile);
      if (form == nullptr || kh > tile || kw > tile) {
        throw std::invalid_argument(spec.op + ": there is no tile of " + std::to_string(tile) + " for kernels of " +
                                    kernel);
      }
    }
    m_y = form->t_y - kh + 1, m_x = form->t_x - kw + 1;
    const auto& padding = spec.list("padding", 4);
    pad_top_ = static_cast<int>(padding[0]);
    pad_left_ = static_cast<int>(padding[1]);
    tiles_y = (out.h + m_y - 1) / m_y;
    tiles_x = (out.w + m_x - 1) / m_x;
    lanes_ = tile_kernels(spec.isa).lanes;
    epilogue = parse_epilogue(spec, out.blocks, lanes_);
    if (epilogue.has_residual) residual = spec.in.at(1);
  }

  // What a kernel's name says of its form, such as f4x4k3x3 or t16x16k7x7.
  std::string name() const {
    const auto by = [](int y, int x) { return std::to_string(y).append("x").append(std::to_string(x)); };
    const std::string tile = winograd == nullptr ? by(form->t_y, form->t_x) : by(m_y, m_x);
    return std::string(winograd == nullptr ? "t" : "f").append(tile).append("k").append(by(kh, kw));
  }

  int count() const { return out.n * tiles_y * tiles_x; }

  // Tile number i of all images, and the next ones.
  struct Cursor {
    const Tiling& tiling;
    int n, y, x;
    Cursor(const Tiling& t, int i)
        : tiling(t), n(i / t.tiles_x / t.tiles_y), y(i / t.tiles_x % t.tiles_y), x(i % t.tiles_x) {}
    void next() {
      if (++x < tiling.tiles_x) return;
      x = 0;
      if (++y == tiling.tiles_y) y = 0, ++n;
    }
  };

  // Of one channel block; what `out` and its strides are is left to the caller.
  TileInput input(const RunContext& ctx, const Cursor& at, int block) const {
    const int iy = at.y * m_y - pad_top_, ix = at.x * m_x - pad_left_;
    TileInput tile;
    tile.row = in.row;
    tile.pixel = lanes_;
    tile.in = ctx.at(in) + block * in.plane + at.n * in.image + iy * in.row + ix * lanes_;
    tile.y0 = std::max(0, -in.top - iy), tile.y1 = std::min(form->t_y, in.h + in.bottom - iy);
    tile.x0 = std::max(0, -in.left - ix), tile.x1 = std::min(form->t_x, in.w + in.right - ix);
    return tile;
  }

  // Likewise, of what `in` is.
  TileOutput output(const RunContext& ctx, const Cursor& at, ptrdiff_t block) const {
    TileOutput o;
    o.row = out.row;
    o.pixel = lanes_;
    o.res_row = residual.row;
    o.res_pixel = lanes_;
    o.act = &epilogue.act;
    o.act_before_residual = epilogue.act_before_residual;
    o.rows = std::min(m_y, out.h - at.y * m_y);
    o.cols = std::min(m_x, out.w - at.x * m_x);
    o.out = ctx.at(out) + at.n * out.image + block * out.plane + at.y * m_y * out.row + at.x * m_x * lanes_;
    if (epilogue.has_residual) {
      o.residual = ctx.at(residual) + at.n * residual.image + block * residual.plane + at.y * m_y * residual.row +
                   at.x * m_x * lanes_;
    }
    o.bias = epilogue.bias.size() != 0 ? epilogue.bias.data() + block * lanes_ : nullptr;
    o.slope = epilogue.act.slope != nullptr ? epilogue.act.slope + block * lanes_ : nullptr;
    return o;
  }

  // Spectra of the filters that filter(k) points to for k below `count`, one in each lane, `freq_stride` floats from
  // one frequency to the next. Winograd's in double: its matrices cancel. `work`: spectra_floats().
  template <class Filter>
  void spectra(Filter filter, int count, float* work, float* to, size_t freq_stride) const {
    if (winograd != nullptr) {
      double u[16 * 16];
      for (int k = 0; k < count; ++k) {
        winograd_filter(*winograd, filter(k), u);
        for (int q = 0; q < form->freqs; ++q) to[static_cast<size_t>(q) * freq_stride + k] = static_cast<float>(u[q]);
      }
      return;
    }
    float* const beside = work + form->work;
    for (int i = 0; i < kh * kw; ++i) {
      for (int k = 0; k < lanes_; ++k) beside[i * lanes_ + k] = k < count ? filter(k)[i] : 0.0f;
    }
    TileFilter f;
    f.taps = beside;
    f.kh = kh, f.kw = kw;
    f.out = to;
    f.freq_stride = static_cast<ptrdiff_t>(freq_stride);
    f.work = work;
    form->filter(f);
  }
  size_t spectra_floats() const { return form->work + static_cast<size_t>(kh) * kw * lanes_; }

  Tensor in, out, residual;
  Epilogue epilogue;
  const WinogradKernel* winograd = nullptr;  // null: by FFT
  const TileForm* form = nullptr;
  int kh = 1, kw = 1, m_y = 1, m_x = 1, tiles_y = 0, tiles_x = 0;

 private:
  int pad_top_ = 0, pad_left_ = 0, lanes_ = 1;
};

}  // namespace fastcnn
