// How the tiles of a form cover a map, for the steps that run it.
//
// Stride by polyphase: the rows and columns of a map that lie a stride apart are a map of their own, and so are the
// taps of a kernel; a channel block is then as many blocks as there are such phases, whose correlations add up. Nothing
// that the stride skips is computed.
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
    const auto& stride = spec.list("stride", 2);
    stride_y_ = static_cast<int>(stride[0]), stride_x_ = static_cast<int>(stride[1]);
    const auto& dilation = spec.list("dilation", 2);
    apart_y_ = static_cast<int>(dilation[0]), apart_x_ = static_cast<int>(dilation[1]);
    if ((stride_y_ > 1 && apart_y_ > 1) || (stride_x_ > 1 && apart_x_ > 1)) {
      throw std::invalid_argument(spec.op + ": stride and dilation along one axis");
    }
    kernel_h_ = static_cast<int>(w.shape[2]), kernel_w_ = static_cast<int>(w.shape[3]);
    kh = (kernel_h_ + stride_y_ - 1) / stride_y_, kw = (kernel_w_ + stride_x_ - 1) / stride_x_;
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
    tiles_y = ((out.h + apart_y_ - 1) / apart_y_ + m_y - 1) / m_y;
    tiles_x = ((out.w + apart_x_ - 1) / apart_x_ + m_x - 1) / m_x;
    lanes_ = tile_kernels(spec.isa).lanes;
    epilogue = parse_epilogue(spec, out.blocks, lanes_);
    if (epilogue.has_residual) residual = spec.in.at(1);
  }

  // What a kernel's name says of its form, such as f4x4k3x3 or t16x16k7x7.
  std::string name() const {
    const auto by = [](int y, int x) { return std::to_string(y).append("x").append(std::to_string(x)); };
    const std::string tile = winograd == nullptr ? by(form->t_y, form->t_x) : by(m_y, m_x);
    const std::string name =
        std::string(winograd == nullptr ? "t" : "f").append(tile).append("k").append(by(kernel_h_, kernel_w_));
    const std::string strided = phases() == 1 ? name : name + "s" + by(stride_y_, stride_x_);
    return apart_y_ * apart_x_ == 1 ? strided : strided + "d" + by(apart_y_, apart_x_);
  }

  int phases() const { return stride_y_ * stride_x_; }
  // Blocks of channels and phases: those of a channel block follow each other.
  int blocks() const { return in.blocks * phases(); }

  int count() const { return out.n * apart_y_ * apart_x_ * tiles_y * tiles_x; }

  // Tile number i of all images, and the next ones; `map`: which of the maps that dilation makes of an image.
  struct Cursor {
    const Tiling& tiling;
    int n, map, y, x;
    Cursor(const Tiling& t, int i) : tiling(t), y(i / t.tiles_x % t.tiles_y), x(i % t.tiles_x) {
      const int maps = t.apart_y_ * t.apart_x_, whole = i / t.tiles_x / t.tiles_y;
      n = whole / maps, map = whole % maps;
    }
    void next() {
      if (++x < tiling.tiles_x) return;
      x = 0;
      if (++y < tiling.tiles_y) return;
      y = 0;
      if (++map == tiling.apart_y_ * tiling.apart_x_) map = 0, ++n;
    }
    // Its first row and column of the output.
    int row() const { return map / tiling.apart_x_ + y * tiling.m_y * tiling.apart_y_; }
    int column() const { return map % tiling.apart_x_ + x * tiling.m_x * tiling.apart_x_; }
  };

  // Of one of blocks(); what `out` and its strides are is left to the caller.
  TileInput input(const RunContext& ctx, const Cursor& at, int block) const {
    const int phase = block % phases();
    const int iy = at.row() * stride_y_ - pad_top_ + phase / stride_x_;
    const int ix = at.column() * stride_x_ - pad_left_ + phase % stride_x_;
    const int step_y = stride_y_ * apart_y_, step_x = stride_x_ * apart_x_;
    TileInput tile;
    tile.row = step_y * in.row;
    tile.pixel = static_cast<ptrdiff_t>(step_x) * lanes_;
    tile.in =
        ctx.at(in) + block / phases() * in.plane + at.n * in.image + iy * in.row + static_cast<ptrdiff_t>(ix) * lanes_;
    inside(iy, in.top, int64_t{in.h} + in.bottom, step_y, form->t_y, tile.y0, tile.y1);
    inside(ix, in.left, int64_t{in.w} + in.right, step_x, form->t_x, tile.x0, tile.x1);
    return tile;
  }

  // Likewise, of what `in` is.
  TileOutput output(const RunContext& ctx, const Cursor& at, ptrdiff_t block) const {
    TileOutput o;
    const ptrdiff_t row = at.row(), column = at.column();
    o.row = apart_y_ * out.row;
    o.pixel = static_cast<ptrdiff_t>(apart_x_) * lanes_;
    o.res_row = apart_y_ * residual.row;
    o.res_pixel = o.pixel;
    o.act = &epilogue.act;
    o.act_before_residual = epilogue.act_before_residual;
    // None, where one of the maps that dilation makes has a row or column less than the others.
    o.rows = static_cast<int>(std::clamp<ptrdiff_t>((out.h - row + apart_y_ - 1) / apart_y_, 0, m_y));
    o.cols = static_cast<int>(std::clamp<ptrdiff_t>((out.w - column + apart_x_ - 1) / apart_x_, 0, m_x));
    o.out = ctx.at(out) + at.n * out.image + block * out.plane + row * out.row + column * lanes_;
    if (epilogue.has_residual) {
      o.residual =
          ctx.at(residual) + at.n * residual.image + block * residual.plane + row * residual.row + column * lanes_;
    }
    o.bias = epilogue.bias.size() != 0 ? epilogue.bias.data() + block * lanes_ : nullptr;
    o.slope = epilogue.act.slope != nullptr ? epilogue.act.slope + block * lanes_ : nullptr;
    return o;
  }

  // Spectra of one phase of the filters that filter(k) points to for k below `count`, one in each lane, `freq_stride`
  // floats from one frequency to the next; zeros in the other lanes. `work`: spectra_floats().
  template <class Filter>
  void spectra(Filter filter, int count, int phase, float* work, float* to, size_t freq_stride) const {
    float* const beside = work + form->work;
    float* tap = beside;
    for (int i = 0; i < kh; ++i) {
      for (int j = 0; j < kw; ++j, tap += lanes_) {
        const int y = i * stride_y_ + phase / stride_x_, x = j * stride_x_ + phase % stride_x_;
        const int known = y < kernel_h_ && x < kernel_w_ ? count : 0;
        for (int k = 0; k < known; ++k) tap[k] = filter(k)[y * kernel_w_ + x];
        std::fill(tap + known, tap + lanes_, 0.0f);
      }
    }
    TileFilter f;
    f.taps = beside;
    f.kh = kh, f.kw = kw;
    f.out = to;
    f.freq_stride = static_cast<ptrdiff_t>(freq_stride);
    f.work = work;
    (winograd != nullptr ? winograd->spectra : form->filter)(f);
  }
  size_t spectra_floats() const { return form->work + static_cast<size_t>(kh) * kw * lanes_; }

  Tensor in, out, residual;
  Epilogue epilogue;
  const WinogradKernel* winograd = nullptr;  // null: by FFT
  const TileForm* form = nullptr;
  // Of one phase: taps; rows and columns of an output tile.
  int kh = 1, kw = 1, m_y = 1, m_x = 1, tiles_y = 0, tiles_x = 0;

 private:
  // Points of a tile, `step` apart from `first` on, that lie in -before ... behind.
  static void inside(int64_t first, int before, int64_t behind, int step, int points, int& begin, int& end) {
    const int64_t least = first >= -before ? 0 : (-before - first + step - 1) / step;
    const int64_t most = first >= behind ? 0 : (behind - 1 - first) / step + 1;
    begin = static_cast<int>(std::min<int64_t>(least, points));
    end = static_cast<int>(std::min<int64_t>(most, points));
  }

  int stride_y_ = 1, stride_x_ = 1, apart_y_ = 1, apart_x_ = 1, kernel_h_ = 1, kernel_w_ = 1, pad_top_ = 0,
      pad_left_ = 0, lanes_ = 1;
};

}  // namespace fastcnn
