// Packed weights to 16 bits, as kernels/unpack reads them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/memory.h"
#include "kernels/unpack/unpack.h"

namespace fastcnn {

// Matrices of `rows` x `width` one after the other, in 16 bits with a scale per column and kScaleRows rows.
class RoundedWeights {
 public:
  RoundedWeights() = default;
  RoundedWeights(size_t rows, size_t columns)
      : rows_(rows), codes_((rows * columns + 1) / 2), scales_(scale_rows() * columns) {}

  size_t bytes() const { return (codes_.size() + scales_.size()) * sizeof(float); }

  // The matrix whose first column has this number among the columns of all of them.
  const int16_t* codes(size_t column) const { return reinterpret_cast<const int16_t*>(codes_.data()) + rows_ * column; }
  const float* scales(size_t column) const { return scales_.data() + scale_rows() * column; }

  void round(const float* w, size_t column, size_t width) {
    int16_t* codes = const_cast<int16_t*>(this->codes(column));
    float* scale = const_cast<float*>(scales(column));
    for (size_t first = 0; first < rows_; first += kScaleRows, scale += width) {
      const size_t last = std::min(rows_, first + kScaleRows);
      for (size_t k = 0; k < width; k += kColumns)
        round_columns(w, first, last, k, std::min(width, k + kColumns), width, codes, scale);
    }
  }

  // Rows row0 ... row1 of the matrix at `column`, `vectors` vectors wide, as floats.
  void expand(const UnpackKernels& kernels, size_t column, int vectors, int row0, int row1, float* out) const {
    const ptrdiff_t width = static_cast<ptrdiff_t>(vectors) * kernels.lanes;
    for (int row = row0; row < row1;) {
      const int stop = std::min(row1, (row / kScaleRows + 1) * kScaleRows);
      kernels.i16(codes(column) + row * width, scales(column) + row / kScaleRows * width, stop - row, vectors,
                  out + (row - row0) * width);
      row = stop;
    }
  }

 private:
  static constexpr size_t kColumns = 16;  // a cache line

  // Columns k0 ... k1 of rows `first` ... `last`, which share their scales.
  static void round_columns(const float* w, size_t first, size_t last, size_t k0, size_t k1, size_t width,
                            int16_t* codes, float* scale) {
    float top[kColumns] = {};
    double inverse[kColumns];
    for (size_t r = first; r < last; ++r) {
      for (size_t k = k0; k < k1; ++k) top[k - k0] = std::max(top[k - k0], std::fabs(w[r * width + k]));
    }
    for (size_t k = k0; k < k1; ++k) {
      scale[k] = top[k - k0] / 32767.0f;
      inverse[k - k0] = top[k - k0] > 0.0f ? 32767.0 / static_cast<double>(top[k - k0]) : 0.0;
    }
    for (size_t r = first; r < last; ++r) {
      for (size_t k = k0; k < k1; ++k) {
        codes[r * width + k] =
            static_cast<int16_t>(std::lrint(static_cast<double>(w[r * width + k]) * inverse[k - k0]));
      }
    }
  }

  size_t scale_rows() const { return (rows_ + kScaleRows - 1) / kScaleRows; }

  size_t rows_ = 0;
  Buffer codes_, scales_;
};

}  // namespace fastcnn
