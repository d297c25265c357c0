// FFT convolution of real maps: the tile forms of t x t points, for kernels of any size up to t.
//
// A tile's spectrum has t^2 / 2 - 2 complex frequencies and 4 real ones, the others being conjugates of these. A
// product of complex numbers takes three real ones (Gauss): with x = a + ib and conj(k) = c + ie,
//
//   p = c (a + b)   q = a (e - c)   s = b (c + e)   x conj(k) = (p - s) + i (p + q)
//
// so that a form has 4 + 3 (t^2 / 2 - 2) frequencies in the sense of kernels/tiles, and the product over channels is
// the same code as Winograd's. Order: (0, 0), (0, t/2), (t/2, 0), (t/2, t/2), then three for each (row, column), where
// row 0 and row t/2 have columns 1 ... t/2 - 1 and rows 1 ... t/2 - 1 have columns 0 ... t - 1.
//
// References: Mathieu, Henaff, LeCun 2013, arXiv:1312.5851; Vasilache et al. 2014, arXiv:1412.7580; two real transforms
// in one complex one: Cooley, Lewis, Welch 1970.
#pragma once

#include "base/isa.h"
#include "kernels/tiles/tiles.h"

namespace fastcnn {

// X(t, a, b): sizes there are kernels for, and their factors, t = a * b: a short transform of each is done in
// registers.
#define FASTCNN_FFT_SIZES(X) \
  X(8, 8, 1)                 \
  X(12, 4, 3)                \
  X(16, 4, 4)                \
  X(18, 6, 3)                \
  X(20, 4, 5)                \
  X(24, 6, 4)                \
  X(32, 8, 4)                \
  X(36, 6, 6)                \
  X(40, 8, 5)                \
  X(48, 8, 6)                \
  X(60, 10, 6)               \
  X(64, 8, 8)

// One of the t/2 rows that a tile's columns are transformed to; row 0 stands for two real ones.
struct FftRow {
  int row = 0;
  float* points = nullptr;    // [x][2][V]: t of them, or `cols` of the output
  float* products = nullptr;  // from the row's first frequency on, see fft_row_freq()
  ptrdiff_t freq_stride = 0;
  int cols = 0;  // points wanted, when it is transformed back
};

// input() and output() of a form in two steps: the columns of a tile give rows, the rows give frequencies. What is
// multiplied at a time is then a row of many tiles, of each t/2 times less than all its frequencies.
struct FftHalves {
  void (*columns)(const TileInput&) = nullptr;        // to points of row r at out + r * freq_stride
  void (*row)(const FftRow&) = nullptr;               // points to factors
  void (*row_back)(const FftRow&) = nullptr;          // products to points
  void (*columns_back)(const TileOutput&) = nullptr;  // from points of row r at in + r * freq_stride, an even number
};

// First frequency of a row; that of row t/2 is the form's count of frequencies.
constexpr int fft_row_freq(int t, int row) { return row == 0 ? 0 : 3 * t * row - 2; }

struct FftForms {
  static constexpr int kMost = 16;
  Isa isa = Isa::kScalar;
  TileForm forms[kMost] = {};
  FftHalves halves[kMost] = {};
  int count = 0;
};

const FftForms& fft_forms(Isa isa);

// The form of t x t tiles; null where there is none.
const TileForm* find_fft(Isa isa, int t);
// Of a form that there is.
const FftHalves& fft_halves(Isa isa, int t);

}  // namespace fastcnn
