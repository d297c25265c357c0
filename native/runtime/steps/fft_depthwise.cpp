// Depthwise convolution by FFT, for large kernels: the spectrum of a tile times that of its channels' filters.
//
// No sum over channels: every tile of a channel block is transformed, multiplied and transformed back by itself, in
// memory of its thread. Threads take equal shares of all tiles of all channel blocks.
#include <algorithm>

#include "kernels/tiles/tiles.h"
#include "runtime/steps/tiling.h"

namespace fastcnn {
namespace {

class FftDepthwiseStep final : public Step {
 public:
  explicit FftDepthwiseStep(const StepSpec& spec) : tiling_(spec), kernels_(tile_kernels(spec.isa)) {
    out = spec.out;
    const FloatArray& w = spec.weight("weight");
    if (w.shape.at(0) != tiling_.in.c || w.shape.at(1) != 1) {
      throw std::invalid_argument("fft_depthwise: needs one filter per channel");
    }
    if (tiling_.phases() != 1) throw std::invalid_argument("fft_depthwise: needs stride 1");
    const int V = kernels_.lanes, taps = tiling_.kh * tiling_.kw;
    weights_ = Buffer(spectrum() * out.blocks);
    Buffer work(tiling_.spectra_floats());
    for (int block = 0; block < out.blocks; ++block) {
      const auto filter = [&](int k) { return w.data + (static_cast<size_t>(block) * V + k) * taps; };
      tiling_.spectra(filter, std::min(V, out.c - block * V), 0, work.data(), weights_.data() + spectrum() * block,
                      static_cast<size_t>(V));
    }
  }

  std::string kernel() const override {
    return std::string("fft_depthwise_f32_").append(tiling_.name()).append("_").append(isa_name(kernels_.isa));
  }
  size_t weight_bytes() const override { return weights_.size() * sizeof(float) + tiling_.epilogue.bytes(); }
  size_t scratch_floats(int threads) const override { return own_floats() * static_cast<size_t>(threads); }

  void run(const RunContext& ctx) const override {
    float* const spectra = ctx.scratch + own_floats() * static_cast<size_t>(ctx.thread);
    float* const work = spectra + spectrum();
    const int per_block = tiling_.count();
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.blocks) * per_block, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int block = static_cast<int>(i / per_block);
      const Tiling::Cursor at(tiling_, static_cast<int>(i % per_block));
      TileInput tile = tiling_.input(ctx, at, block);
      tile.out = spectra;
      tile.freq_stride = kernels_.lanes;
      tile.work = work;
      tiling_.form->input(tile);
      kernels_.multiply(weights_.data() + spectrum() * block, spectra, spectrum());
      TileOutput o = tiling_.output(ctx, at, block);
      o.in = spectra;
      o.freq_stride = kernels_.lanes;
      o.work = work;
      tiling_.form->output(o);
    }
  }

 private:
  size_t spectrum() const { return static_cast<size_t>(tiling_.form->freqs) * kernels_.lanes; }
  size_t own_floats() const { return spectrum() + tiling_.form->work; }

  Tiling tiling_;
  const TileKernels& kernels_;
  Buffer weights_;
};

}  // namespace

std::unique_ptr<Step> make_fft_depthwise(const StepSpec& spec) { return std::make_unique<FftDepthwiseStep>(spec); }

}  // namespace fastcnn
