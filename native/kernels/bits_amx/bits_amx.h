// Products of +-1 (kernels/bits) on the tile registers of AMX (kernels/amx/byte_tiles.h), which multiply bytes at about
// twice the rate at which bits are counted: a map's bits are made bytes of 0 and 1 first, and weights are bytes of +-1.
// With the bits of a filter that are set to begin with, a sum is the number of bits in which the factors differ.
#pragma once

#include "kernels/amx/byte_tiles.h"
#include "kernels/bits/bits.h"

namespace fastcnn {

constexpr int kBitsAmxVectors = 2;  // of 16 outputs: a word of bits

struct BitsAmxShape : ByteTileShape {
  BitsConvShape to;                   // what becomes of sums
  ptrdiff_t to_row = 0, res_row = 0;  // words, or floats, between rows
};

// The tiles of one image, for a word of output channels.
struct BitsAmxArgs : ByteTileArgs {
  BitsConvArgs to;  // of the first row, and the word's first channel; `cases` for rows of every case
  // The case of each row, and whether rows of a case have anything to correct; null where none have.
  const int64_t* row_cases = nullptr;
  const uint8_t* corrected = nullptr;
};

struct BitsAmxKernels {
  Isa isa;
  bool emulated;
  // Bits of words to bytes.
  void (*expand)(const uint32_t* words, int64_t count, uint8_t* out);
  void (*run)(const BitsAmxShape&, const BitsAmxArgs&);
};

// Null where there are none. The emulated instruction set has them for tests.
const BitsAmxKernels* bits_amx_kernels(Isa isa);

}  // namespace fastcnn
