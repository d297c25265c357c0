// Convolution of bytes on the tile registers of AMX (kernels/int8_amx).
//
// split "tiles": threads share the pixels. split "panels": they share the output channels, and each core reads only its
// part of the weights.
#include "kernels/int8_amx/int8_amx.h"

#include "runtime/steps/byte_tiles.h"
#include "runtime/steps/int8_step.h"

namespace fastcnn {
namespace {

class Int8AmxStep final : public Int8Step {
 public:
  explicit Int8AmxStep(const StepSpec& spec) : Int8Step(spec), amx_(int8_amx_kernels(spec.isa)) {
    if (amx_ == nullptr) throw std::invalid_argument(std::string("int8_amx: not on ") + isa_name(spec.isa));
    if (in_.space != Space::kArena) throw std::invalid_argument("int8_amx: reads behind its input, in the arena only");
    split_panels_ = spec.word("split", "tiles") == "panels";
    Int8AmxShape& s = shape_;
    const int64_t channels = in_.lanes * 4;
    tiles_.lay_out({in_.image * 4, in_.row * 4, in_.pixel * 4, channels}, spec, out, s);
    const int unit = out.bytes() ? 4 : 1, res_unit = residual_.bytes() ? 4 : 1;
    s.out_image = out.image * unit;
    s.out_row = out.row * unit;
    s.res_image = residual_.image * res_unit;
    s.res_row = residual_.row * res_unit;
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2);
    const FloatArray& w = spec.weight("weight");
    const int64_t filter = kernel[0] * kernel[1] * channels;
    if (w.size * 4 != static_cast<size_t>(out.c * filter)) {
      throw std::invalid_argument("int8_amx: the weight has not the bytes that channels and taps need");
    }
    tiles_.pack(vectors_, out.c, filter,
                [&](int64_t o, int8_t* to) { std::memcpy(to, w.data + o * filter / 4, static_cast<size_t>(filter)); });
    const int64_t tile_bytes = s.pixels * (stride[0] * s.in_pixel + (out.pixel + residual_.pixel) * 4);
    block_ = std::max<int64_t>(2, kBlockBytes / tile_bytes / 2 * 2);
  }

  std::string kernel() const override {
    return std::string("int8_conv_") + (out.bytes() ? "u8_" : "f32_") + "amx_32x32_" + isa_name(amx_->isa);
  }
  size_t weight_bytes() const override { return tiles_.weight_bytes() + numbers_bytes(); }
  size_t reads_past() const override { return tiles_.past() / sizeof(float); }

  void run(const RunContext& ctx) const override {
    const int64_t all = shape_.image_tiles * static_cast<int64_t>(tiles_.images());
    int64_t tile0 = 0, tile1 = all, panel0 = 0, panel1 = tiles_.panels();
    if (split_panels_) {
      ctx.part(tiles_.panels(), panel0, panel1);
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

  void multiply(const RunContext& ctx, int64_t panel, int64_t tile0, int64_t tile1) const {
    Int8AmxArgs a;
    const int v = static_cast<int>(panel) * kByteTilePanel;
    a.in = from(ctx, 0, 0);
    a.tile0 = tile0;
    a.tile1 = tile1;
    a.weights = tiles_.panel(panel);
    a.vectors = destination(ctx, 0, 0, v, std::min(kByteTilePanel, vectors_ - v), a.to);
    a.start = a.to.start;
    if (ByteTiles::images_are_pixels(out)) {
      a.to.out_pixel = shape_.out_image;
      a.to.res_pixel = shape_.res_image;
    }
    if (a.vectors > 0) amx_->run(shape_, a);
  }

  const Int8AmxKernels* amx_;
  Int8AmxShape shape_;
  ByteTiles tiles_;
  bool split_panels_ = false;
  int64_t block_ = 2;  // tiles
};

}  // namespace

std::unique_ptr<Step> make_int8_amx(const StepSpec& spec) { return std::make_unique<Int8AmxStep>(spec); }

}  // namespace fastcnn
