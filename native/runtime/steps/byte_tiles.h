// What steps share that multiply bytes on the tile registers of AMX (kernels/amx/byte_tiles.h).
#pragma once

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/amx/byte_tiles.h"
#include "runtime/step.h"

namespace fastcnn {

// A map of bytes: how far apart things are in it, and the channels of a pixel.
struct ByteMap {
  ptrdiff_t image = 0, row = 0, pixel = 0;
  int64_t channels = 0;
};

class ByteTiles {
 public:
  // The layout of a layer, but for its offsets, which stay here.
  void lay_out(const ByteMap& in, const StepSpec& spec, const Tensor& out, ByteTileShape& s) {
    const auto &kernel = spec.list("kernel", 2), &stride = spec.list("stride", 2), &dilation = spec.list("dilation", 2);
    s.in_image = in.image;
    s.in_row = stride[0] * in.row;
    s.in_pixel = stride[1] * in.pixel;
    s.out_h = out.h;
    s.out_w = out.w;
    images_ = out.n;
    if (images_are_pixels(out)) {
      images_ = 1;
      s.out_w = out.n;
      s.in_pixel = s.in_image;
    }
    s.row_tiles = (s.out_w + kByteTilePixels - 1) / kByteTilePixels;
    s.image_tiles = s.row_tiles * s.out_h;
    s.pixels = std::min(kByteTilePixels, s.out_w);
    if (s.out_h > 1 && s.in_row % s.in_pixel == 0) {
      const int64_t row_pixels = s.in_row / s.in_pixel, all = (s.out_h - 1) * row_pixels + s.out_w;
      const int64_t tiles = (all + kByteTilePixels - 1) / kByteTilePixels;
      if (tiles < s.image_tiles) {
        s.row_pixels = static_cast<int>(row_pixels);
        s.image_tiles = static_cast<int>(tiles);
        s.pixels = static_cast<int>(std::min<int64_t>(kByteTilePixels, all));
      }
    }
    // Taps of a row that follow each other are one run of bytes.
    const bool joined = dilation[1] == 1;
    const int64_t run_taps = joined ? 1 : kernel[1], run_bytes = in.channels * (joined ? kernel[1] : 1);
    for (int64_t run = 0; run < kernel[0] * run_taps; ++run) {
      for (int64_t byte = 0; byte < run_bytes; byte += kByteTileBytes) {
        const int64_t offset = run / run_taps * dilation[0] * in.row + run % run_taps * dilation[1] * in.pixel + byte;
        if (offset != static_cast<int32_t>(offset)) {
          throw std::invalid_argument("step " + spec.op + ": the map is too large");
        }
        offsets_.push_back(static_cast<int32_t>(offset));
        first_.push_back(run * run_bytes + byte);
        count_.push_back(std::min<int64_t>(kByteTileBytes, run_bytes - byte));
      }
    }
    s.steps = static_cast<int>(offsets_.size());
    s.step_offset = offsets_.data();
    past_ = static_cast<size_t>(s.pixels * s.in_pixel + kByteTileBytes);
  }

  // Whether a layer of a single pixel has images in the place of pixels.
  static bool images_are_pixels(const Tensor& out) { return out.h == 1 && out.w == 1; }

  // `vectors` vectors of 16 filters; row(o, bytes) writes filter o's bytes [tap][channel].
  template <class Row>
  void pack(int64_t vectors, int64_t outputs, int64_t filter_bytes, const Row& row) {
    vectors_ = vectors;
    const size_t size = offsets_.size() * static_cast<size_t>(vectors) * kByteTile;
    weights_ = Buffer(size / sizeof(float));
    std::memset(weights_.data(), 0, size);
    std::vector<int8_t> filter(static_cast<size_t>(filter_bytes));
    for (int64_t o = 0; o < outputs; ++o) {
      row(o, filter.data());
      const int64_t vector = o / 16, panel = vector / kByteTilePanel;
      const int64_t together = std::min<int64_t>(kByteTilePanel, vectors - panel * kByteTilePanel);
      for (size_t k = 0; k < offsets_.size(); ++k) {
        const int64_t tile = static_cast<int64_t>(k) * together + vector % kByteTilePanel;
        int8_t* const to =
            reinterpret_cast<int8_t*>(weights_.data()) + panel * panel_bytes() + tile * kByteTile + o % 16 * 4;
        for (int64_t i = 0; i < count_[k]; ++i) to[i / 4 * 64 + i % 4] = filter[static_cast<size_t>(first_[k] + i)];
      }
    }
    first_ = count_ = {};
  }

  int64_t panels() const { return (vectors_ + kByteTilePanel - 1) / kByteTilePanel; }
  int images() const { return images_; }
  const int8_t* panel(int64_t p) const { return reinterpret_cast<const int8_t*>(weights_.data()) + p * panel_bytes(); }
  size_t weight_bytes() const { return weights_.size() * sizeof(float) + offsets_.size() * sizeof(int32_t); }
  // Bytes behind the end of a map that tiles may read.
  size_t past() const { return past_; }

 private:
  ptrdiff_t panel_bytes() const { return static_cast<ptrdiff_t>(offsets_.size()) * kByteTilePanel * kByteTile; }

  int images_ = 1;
  int64_t vectors_ = 0;
  size_t past_ = 0;
  std::vector<int32_t> offsets_;
  std::vector<int64_t> first_, count_;  // bytes of a filter in each step, until it is packed
  Buffer weights_;
};

}  // namespace fastcnn
