// Convolution of bytes on the tile registers of AMX (kernels/int8_amx).
//
// split "tiles": threads share the pixels. split "panels": they share the output channels, and each core reads only its
// part of the weights.
#include "kernels/int8_amx/int8_amx.h"

#include "runtime/steps/int8_step.h"

namespace fastcnn {
namespace {

class Int8AmxStep final : public Int8Step {
 public:
  explicit Int8AmxStep(const StepSpec& spec) : Int8Step(spec), amx_(int8_amx_kernels(spec.isa)) {
    if (amx_ == nullptr) throw std::invalid_argument(std::string("int8_amx: not on ") + isa_name(spec.isa));
    if (in_.space != Space::kArena) throw std::invalid_argument("int8_amx: reads behind its input, in the arena only");
    split_panels_ = spec.word("split", "tiles") == "panels";
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &dilation = spec.list("dilation", 2);
    Int8AmxShape& s = shape_;
    s.in_image = in_.image * 4;
    s.in_row = stride[0] * in_.row * 4;
    s.in_pixel = stride[1] * in_.pixel * 4;
    const int unit = out.bytes() ? 4 : 1;
    s.out_image = out.image * unit;
    s.out_row = out.row * unit;
    if (residual_.blocked) {
      const int words = residual_.bytes() ? 4 : 1;
      s.res_image = residual_.image * words;
      s.res_row = residual_.row * words;
    }
    s.out_h = out.h;
    s.out_w = out.w;
    images_ = out.n;
    images_are_pixels_ = out.h == 1 && out.w == 1;
    if (images_are_pixels_) {
      images_ = 1;
      s.out_w = out.n;
      s.in_pixel = s.in_image;
    }
    s.row_tiles = (s.out_w + kInt8TilePixels - 1) / kInt8TilePixels;
    s.image_tiles = s.row_tiles * s.out_h;
    s.pixels = std::min(kInt8TilePixels, s.out_w);
    if (s.out_h > 1 && s.in_row % s.in_pixel == 0) {
      const int64_t row_pixels = s.in_row / s.in_pixel, all = (s.out_h - 1) * row_pixels + s.out_w;
      const int64_t tiles = (all + kInt8TilePixels - 1) / kInt8TilePixels;
      if (tiles < s.image_tiles) {
        s.row_pixels = static_cast<int>(row_pixels);
        s.image_tiles = static_cast<int>(tiles);
        s.pixels = static_cast<int>(std::min<int64_t>(kInt8TilePixels, all));
      }
    }
    pack(spec.weight("weight"), kernel, dilation);
    s.steps = static_cast<int>(offsets_.size());
    s.step_offset = offsets_.data();
    const int64_t tile_bytes = s.pixels * (stride[0] * s.in_pixel + (out.pixel + residual_.pixel) * 4);
    block_ = std::max<int64_t>(2, kBlockBytes / tile_bytes / 2 * 2);
  }

  std::string kernel() const override {
    return std::string("int8_conv_") + (out.bytes() ? "u8_" : "f32_") + "amx_32x32_" + isa_name(amx_->isa);
  }
  size_t weight_bytes() const override {
    return weights_.size() * sizeof(float) + offsets_.size() * sizeof(int32_t) + numbers_bytes();
  }
  size_t reads_past() const override {
    return static_cast<size_t>(shape_.pixels * shape_.in_pixel + kInt8TileBytes) / sizeof(float);
  }

  void run(const RunContext& ctx) const override {
    const int64_t all = shape_.image_tiles * static_cast<int64_t>(images_), panels = panel_count();
    int64_t tile0 = 0, tile1 = all, panel0 = 0, panel1 = panels;
    if (split_panels_) {
      ctx.part(panels, panel0, panel1);
    } else {
      ctx.part(all, tile0, tile1, 2);
    }
    // A block of the map stays in the second cache while panels of weights pass.
    for (int64_t first = tile0; first < tile1; first += block_) {
      for (int64_t p = panel0; p < panel1; ++p) multiply(ctx, p, first, std::min(tile1, first + block_));
    }
  }

 private:
  static constexpr int64_t kBlockBytes = 512 << 10;

  int64_t panel_count() const { return (vectors_ + kInt8Panel - 1) / kInt8Panel; }
  ptrdiff_t panel_bytes() const { return static_cast<ptrdiff_t>(offsets_.size()) * kInt8Panel * kInt8Tile; }

  // Taps of a row that follow each other are one run of bytes.
  void pack(const FloatArray& w, const std::vector<int64_t>& kernel, const std::vector<int64_t>& dilation) {
    const bool joined = dilation[1] == 1;
    const int64_t words = kernel[0] * kernel[1] * in_.lanes, run_taps = joined ? 1 : kernel[1];
    const int64_t run_words = in_.lanes * (joined ? kernel[1] : 1);
    if (w.size != static_cast<size_t>(out.c * words)) {
      throw std::invalid_argument("int8_amx: the weight has not the bytes that channels and taps need");
    }
    constexpr int64_t kStepWords = kInt8TileBytes / 4;
    std::vector<int64_t> first, count;  // words of a filter in each step
    for (int64_t run = 0; run < kernel[0] * run_taps; ++run) {
      for (int64_t word = 0; word < run_words; word += kStepWords) {
        const int64_t offset =
            run / run_taps * dilation[0] * in_.row * 4 + run % run_taps * dilation[1] * in_.pixel * 4 + word * 4;
        if (offset != static_cast<int32_t>(offset)) throw std::invalid_argument("int8_amx: the map is too large");
        offsets_.push_back(static_cast<int32_t>(offset));
        first.push_back(run * run_words + word);
        count.push_back(std::min(kStepWords, run_words - word));
      }
    }
    const size_t tiles = offsets_.size() * static_cast<size_t>(vectors_);
    weights_ = Buffer(tiles * kInt8Tile / sizeof(float));
    std::memset(weights_.data(), 0, tiles * kInt8Tile);
    for (int64_t o = 0; o < out.c; ++o) {
      const int64_t vector = o / 16, panel = vector / kInt8Panel;
      const int64_t together = std::min<int64_t>(kInt8Panel, vectors_ - panel * kInt8Panel);
      for (size_t k = 0; k < offsets_.size(); ++k) {
        const int64_t tile = static_cast<int64_t>(k) * together + vector % kInt8Panel;
        float* const to = weights_.data() + (panel * panel_bytes() + tile * kInt8Tile) / 4 + o % 16;
        for (int64_t i = 0; i < count[k]; ++i) to[i * 16] = w.data[o * words + first[k] + i];
      }
    }
  }

  void multiply(const RunContext& ctx, int64_t panel, int64_t tile0, int64_t tile1) const {
    Int8AmxArgs a;
    const int v = static_cast<int>(panel) * kInt8Panel;
    a.in = from(ctx, 0, 0);
    a.tile0 = tile0;
    a.tile1 = tile1;
    a.weights = reinterpret_cast<const int8_t*>(weights_.data()) + panel * panel_bytes();
    a.vectors = destination(ctx, 0, 0, v, std::min(kInt8Panel, vectors_ - v), a.to);
    if (images_are_pixels_) {
      a.to.out_pixel = shape_.out_image;
      a.to.res_pixel = shape_.res_image;
    }
    if (a.vectors > 0) amx_->run(shape_, a);
  }

  const Int8AmxKernels* amx_;
  Int8AmxShape shape_;
  int images_ = 1;
  bool images_are_pixels_ = false, split_panels_ = false;
  int64_t block_ = 2;  // tiles
  std::vector<int32_t> offsets_;
  Buffer weights_;
};

}  // namespace

std::unique_ptr<Step> make_int8_amx(const StepSpec& spec) { return std::make_unique<Int8AmxStep>(spec); }

}  // namespace fastcnn
