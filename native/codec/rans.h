// Static rANS (Duda 2013, arXiv:1311.2540) with 32-bit states, 16-bit renormalisation and 1 or 8 interleaved lanes.
//
// Stream:
//   byte 0      bits 0-3 precision M (frequencies sum to 2^M, M <= 15), bits 4-6 mantissa bits m, bit 7 eight lanes
//   table       table.h, one quantised weight q per symbol, zero-padded to a byte
//   states      one little-endian u32 per lane; absent where only one symbol occurs
//   words       little-endian u16, in the order the decoder takes them
//
// The table holds weights as small floats: q below 2^(m+1) stands for itself, above for an (m+1)-bit mantissa and an
// exponent. Encoder and decoder turn them into frequencies by the same integer arithmetic (normalise), so a coarse
// table costs a little rate and many fewer bits; the encoder tries every m and M and keeps the cheapest.
//
// Decoding ends with every lane back in the encoder's first state and no word left over; anything else is damage.
#pragma once

#include "codec/table.h"

namespace fastcnn::codec {

inline constexpr unsigned kMaxPrecision = 15;
inline constexpr unsigned kMaxMantissa = 7;
inline constexpr size_t kLanes = 8;
inline constexpr size_t kOneLaneBelow = 8192;  // shorter streams use one lane: eight would cost 21 bytes more

// Value of the small float q with m mantissa bits.
uint64_t small_float(uint32_t q, unsigned m);

// Frequencies summing to 2^precision, at least 1 for every symbol with q > 0. Throws CodecError where that is
// impossible. Integer arithmetic only.
std::vector<uint32_t> normalise(const Table& quantised, unsigned mantissa, unsigned precision);

struct RansPlan {
  unsigned precision = 0, mantissa = 0;
  Table quantised;
  size_t bytes = 0;  // of the whole stream, a prediction to within a few bytes
};

// The cheapest table for symbols with these counts. Integer arithmetic only, so the choice is the same everywhere.
RansPlan rans_plan(const std::vector<uint64_t>& counts);

template <typename Symbol>
Bytes rans_encode(const Symbol* symbols, size_t count, uint32_t alphabet);

// Writes exactly `count` symbols below `alphabet` or throws CodecError. Never reads outside [data, data + size).
template <typename Symbol>
void rans_decode(const uint8_t* data, size_t size, Symbol* out, size_t count, uint32_t alphabet);

}  // namespace fastcnn::codec
