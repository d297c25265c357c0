// Spectra of a layer's filters, packed for the product of kernels/tiles: [panel][frequency][C][panel width], C counting
// the phases of a stride. In fp32, or in 16 bits that the product widens in registers.
#pragma once

#include <algorithm>

#include "kernels/tiles/tiles.h"
#include "runtime/steps/rounding.h"
#include "runtime/steps/tiling.h"

namespace fastcnn {

class TileWeights {
 public:
  TileWeights(const StepSpec& spec, const Tiling& tiling, const TileKernels& kernels)
      : kernels_(&kernels),
        freqs_(static_cast<size_t>(tiling.form->freqs)),
        blocks_(tiling.blocks()),
        out_blocks_(tiling.out.blocks),
        i16_(spec.word("weights", "f32") == "i16") {
    pack(tiling, spec.weight("weight"));
  }

  // What a step's name says of them.
  const char* stored() const { return i16_ ? "_i16_" : "_f32_"; }
  size_t bytes() const { return weights_.size() * sizeof(float) + rounded_.bytes(); }

  // Vectors of the panel that begins at this block of output channels; 0 beyond the last.
  int width(int block) const { return std::max(0, std::min(kernels_->panel, out_blocks_ - block)); }

  // The matrix of frequency q for the panel that begins at `block`.
  Region matrix(int block, int q) const {
    const ptrdiff_t count = rows() * width(block) * kernels_->lanes;
    if (i16_) return {rounded_.codes(column(block, q)), count * ptrdiff_t{sizeof(int16_t)}};
    return {floats(block, q), count * ptrdiff_t{sizeof(float)}};
  }

  // Products of all tiles with that matrix, `p` saying which tiles: their groups, and where V and M of this frequency
  // are. `next`: what is read after it.
  void product(TileProduct p, int block, int q, Region next) const {
    const int width = this->width(block);
    p.width = width;
    p.blocks = blocks_;
    if (i16_) {
      p.codes = rounded_.codes(column(block, q));
      p.scales = rounded_.scales(column(block, q));
      p.next = next;
      kernels_->product(p);
      return;
    }
    // Long sums in runs, which round less than one sum over all channels.
    const int lanes = kernels_->lanes, runs = static_cast<int>((int64_t{blocks_} * lanes + kSumTerms - 1) / kSumTerms);
    p.u = floats(block, q);
    for (int k = 0; k < runs; ++k) {
      const int cb = static_cast<int>(int64_t{blocks_} * k / runs);
      p.blocks = static_cast<int>(int64_t{blocks_} * (k + 1) / runs) - cb;
      p.add = k > 0;
      const ptrdiff_t size = static_cast<ptrdiff_t>(p.blocks) * lanes * width * lanes;
      p.next = k + 1 == runs ? next : Region{p.u + size, size * ptrdiff_t{sizeof(float)}};
      kernels_->product(p);
      p.u += size;
      p.v += static_cast<ptrdiff_t>(p.blocks) * kernels_->tile * lanes;
    }
  }

 private:
  static constexpr int kSumTerms = 256;

  ptrdiff_t rows() const { return static_cast<ptrdiff_t>(blocks_) * kernels_->lanes; }
  // Of the matrix's first column among the columns of all of them.
  size_t column(int block, int q) const {
    return (static_cast<size_t>(block) * freqs_ + static_cast<size_t>(q) * width(block)) * kernels_->lanes;
  }
  const float* floats(int block, int q) const {
    return weights_.data() + rows() * static_cast<ptrdiff_t>(column(block, q));
  }

  void pack(const Tiling& tiling, const FloatArray& w) {
    const int lanes = kernels_->lanes, panel = kernels_->panel;
    const size_t rows = static_cast<size_t>(this->rows()), columns = freqs_ * out_blocks_ * lanes;
    Buffer all, work(tiling.spectra_floats());
    if (i16_) {
      rounded_ = RoundedWeights(rows, columns);
      all = Buffer(freqs_ * rows * panel * lanes);
    } else {
      weights_ = Buffer(rows * columns);
    }
    for (int b = 0; b < out_blocks_; b += panel) {
      const int vectors = width(b);
      const size_t width = static_cast<size_t>(vectors) * lanes;
      if (i16_) std::fill(all.data(), all.data() + all.size(), 0.0f);
      float* to = i16_ ? all.data() : weights_.data() + rows * column(b, 0);
      for (int j = 0; j < vectors; ++j) {
        for (int c = 0; c < tiling.in.c; ++c) {
          const int first = (b + j) * lanes, phases = tiling.phases();
          const auto filter = [&](int k) {
            return w.data + (static_cast<size_t>(first + k) * w.shape[1] + c) * w.shape[2] * w.shape[3];
          };
          for (int phase = 0; phase < phases; ++phase) {
            const size_t row = (static_cast<size_t>(c / lanes) * phases + phase) * lanes + c % lanes;
            tiling.spectra(filter, std::min(lanes, tiling.out.c - first), phase, work.data(),
                           to + row * width + static_cast<size_t>(j) * lanes, rows * width);
          }
        }
      }
      for (size_t q = 0; i16_ && q < freqs_; ++q) {
        rounded_.round(to + q * rows * width, column(b, static_cast<int>(q)), width);
      }
    }
  }

  const TileKernels* kernels_ = nullptr;
  size_t freqs_ = 0;
  int blocks_ = 0, out_blocks_ = 0;
  bool i16_ = false;
  Buffer weights_;
  RoundedWeights rounded_;
};

// The chunks that tiles are taken in, and how those of a chunk lie in V, [freq][group][cb][tile][V], and in M,
// [freq][tile][panel].
class TileGroups {
 public:
  // Chunks of at most `chunk` tiles, made up to whole groups.
  TileGroups(const StepSpec& spec, const Tiling& tiling, const TileKernels& kernels)
      : tile_(kernels.tile), lanes_(kernels.lanes), panel_(kernels.panel) {
    const int64_t chunk = spec.integer("chunk");
    if (chunk < 1) throw std::invalid_argument(spec.op + ": chunk must be positive");
    chunk_ = (std::min<int64_t>(chunk, tiling.count()) + tile_ - 1) / tile_ * tile_;
    stride_ = static_cast<ptrdiff_t>(tiling.blocks()) * tile_ * lanes_;
  }

  int64_t chunk() const { return chunk_; }
  ptrdiff_t stride() const { return stride_; }  // floats between groups
  // Floats between frequencies, and so how many of V and M belong to one.
  ptrdiff_t v_stride() const { return chunk_ / tile_ * stride_ + kSkew; }
  ptrdiff_t m_stride() const { return chunk_ * panel_ * lanes_ + kSkew; }
  int64_t chunks(int64_t tiles) const { return (tiles + chunk_ - 1) / chunk_; }

  // Where chunk k of `chunks` begins: equal chunks rather than full ones and a rest, in whole register tiles.
  int64_t cut(int64_t count, int64_t k, int64_t chunks) const {
    const int64_t units = (count + tile_ - 1) / tile_;
    return std::min(count, units * k / chunks * tile_);
  }
  // Tiles of a group: groups of equal size rather than full ones and a small rest, which would wait for its sums.
  int group_of(int tiles) const {
    const int groups = (tiles + tile_ - 1) / tile_;
    return (tiles + groups - 1) / groups;
  }
  // Of tile k of the chunk and a channel block; `group`: group_of() the chunk's tiles.
  ptrdiff_t at(int k, int cb, int group) const {
    return k / group * stride_ + (static_cast<ptrdiff_t>(cb) * tile_ + k % group) * lanes_;
  }

 private:
  static constexpr ptrdiff_t kSkew = 16;  // keeps these strides off powers of two

  int tile_, lanes_, panel_;
  int64_t chunk_;
  ptrdiff_t stride_;
};

}  // namespace fastcnn
