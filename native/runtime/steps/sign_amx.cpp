// Convolution of signs on the tile registers of AMX (kernels/bits_amx).
//
// Every thread makes bytes of the rows that its tiles reach, in memory of its own. split "tiles": threads share the
// pixels. split "panels": they share the output channels, and each core reads only its part of the weights.
#include "kernels/bits_amx/bits_amx.h"
#include "runtime/steps/byte_tiles.h"
#include "runtime/steps/sign_step.h"

namespace fastcnn {
namespace {

constexpr int kBits = 32;  // of a word

class SignAmxStep final : public SignProductsStep {
 public:
  explicit SignAmxStep(const StepSpec& spec) : SignProductsStep(spec), amx_(bits_amx_kernels(spec.isa)) {
    if (amx_ == nullptr) throw std::invalid_argument(std::string("sign_amx: not on ") + isa_name(spec.isa));
    if (groups_ != 1 || shape_.in_planes * shape_.weight_planes != 1 || ByteTiles::images_are_pixels(out)) {
      throw std::invalid_argument("sign_amx: takes one group and one plane, and maps of more than one pixel");
    }
    split_panels_ = spec.word("split", "tiles") == "panels";
    tiles_.lay_out({0, in_.row * kBits, in_.pixel * kBits, in_.pixel * kBits}, spec, out, tile_shape_);
    tile_shape_.to = shape_;
    tile_shape_.to_row = out.row;
    tile_shape_.res_row = residual_.row;
    starts_ = Buffer(static_cast<size_t>(vectors_) * 16);
    int32_t* starts = reinterpret_cast<int32_t*>(starts_.data());
    std::fill(starts, starts + starts_.size(), 0);
    const FloatArray& w = spec.weight("weight");
    tiles_.pack(vectors_, out.c, filter_words_ * kBits, [&](int64_t o, int8_t* to) {
      for (int64_t k = 0; k < filter_words_; ++k) {
        uint32_t word;
        std::memcpy(&word, w.data + o * filter_words_ + k, sizeof word);
        for (int b = 0; b < kBits; ++b) {
          const int set = static_cast<int>(word >> b & 1);
          starts[o] += set;
          *to++ = static_cast<int8_t>(1 - 2 * set);
        }
      }
    });
  }

  std::string kernel() const override {
    return std::string("sign_conv_") + (out.signs() ? "bits_" : "f32_") + "amx_32x32_" + isa_name(amx_->isa);
  }
  size_t weight_bytes() const override {
    return tiles_.weight_bytes() + starts_.size() * sizeof(float) + numbers_bytes();
  }
  size_t scratch_floats(int threads) const override { return static_cast<size_t>(threads) * copy_floats(); }

  void run(const RunContext& ctx) const override {
    const int64_t of_image = tile_shape_.image_tiles, all = of_image * out.n;
    int64_t tile0 = 0, tile1 = all, panel0 = 0, panel1 = tiles_.panels();
    if (split_panels_) {
      ctx.part(tiles_.panels(), panel0, panel1);
    } else {
      ctx.part(all, tile0, tile1, 2);
    }
    if (panel0 == panel1) return;
    uint8_t* const copy = reinterpret_cast<uint8_t*>(ctx.scratch + static_cast<size_t>(ctx.thread) * copy_floats());
    while (tile0 < tile1) {
      const int64_t n = tile0 / of_image, stop = std::min(tile1, (n + 1) * of_image);
      const int first = static_cast<int>(tile0 - n * of_image), last = static_cast<int>(stop - n * of_image);
      expand(ctx, n, tile_shape_.row_of(first), tile_shape_.last_row_of(last - 1), copy);
      for (int64_t p = panel0; p < panel1; ++p) multiply(ctx, static_cast<int>(n), p, first, last, copy);
      tile0 = stop;
    }
  }

 private:
  // Rows of the input that the outputs reach, whole ones with their border, and what tiles may read behind them.
  int64_t copy_rows() const { return static_cast<int64_t>(out.h - 1) * reach_.stride + reach_.size; }
  // Whole cache lines: tiles of threads begin at one.
  size_t copy_floats() const {
    const size_t bytes = static_cast<size_t>(copy_rows() * in_.row) * kBits + tiles_.past();
    return (bytes + 63) / 64 * 64 / sizeof(float);
  }

  // Bytes of the rows that output rows y0 ... y1 reach.
  void expand(const RunContext& ctx, int64_t n, int64_t y0, int64_t y1, uint8_t* copy) const {
    const int64_t begin = y0 * reach_.stride, rows = (y1 - y0) * reach_.stride + reach_.size;
    const uint32_t* from = words(static_cast<const float*>(ctx.at(in_))) + n * in_.image +
                           (begin + reach_.first) * in_.row - in_.left * in_.pixel;
    amx_->expand(from, rows * in_.row, copy + begin * in_.row * kBits);
  }

  void multiply(const RunContext& ctx, int n, int64_t panel, int64_t tile0, int64_t tile1, const uint8_t* copy) const {
    const int v = static_cast<int>(panel) * kBitsAmxVectors;
    BitsAmxArgs a;
    // The first tap of the first output, in a copy that begins with the first row that is reached.
    a.in = copy + (start_ - reach_.first * in_.row + in_.left * in_.pixel) * kBits;
    a.tile0 = tile0;
    a.tile1 = tile1;
    a.weights = tiles_.panel(panel);
    a.vectors = kBitsAmxVectors;
    a.start = reinterpret_cast<const int32_t*>(starts_.data()) + static_cast<ptrdiff_t>(v) * 16;
    destination(ctx, n, 0, v, kBitsAmxVectors, a.to);
    if (!corrected_.empty()) {
      a.row_cases = row_cases_.data();
      a.corrected = corrected_.data();
      a.to.cases = cases_.data();
    }
    if (a.to.vectors > 0) amx_->run(tile_shape_, a);
  }

  const BitsAmxKernels* amx_;
  BitsAmxShape tile_shape_;
  ByteTiles tiles_;
  Buffer starts_;
  bool split_panels_ = false;
};

}  // namespace

std::unique_ptr<Step> make_sign_amx(const StepSpec& spec) { return std::make_unique<SignAmxStep>(spec); }

}  // namespace fastcnn
