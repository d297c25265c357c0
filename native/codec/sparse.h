// The relative-index form of Deep Compression (Han, Mao and Dally 2016, arXiv:1510.00149, section 2): one (gap, value)
// pair per symbol that differs from `fill`, gap counting the fill symbols before it, in k bits. A longer gap G is cut
// by floor(G / 2^k) filler pairs (2^k - 1, fill), each of which stands for 2^k fill symbols. Symbols after the last
// pair are fill.
#pragma once

#include "codec/bits.h"

namespace fastcnn::codec {

inline constexpr unsigned kMaxGapBits = 12;

struct Pairs {
  std::vector<uint16_t> gaps;
  std::vector<uint16_t> values;
};

template <typename Symbol>
Pairs sparse_split(const Symbol* symbols, size_t count, uint32_t fill, unsigned gap_bits);

// Throws CodecError where the pairs run past `count`.
template <typename Symbol>
void sparse_join(const uint16_t* gaps, const uint16_t* values, size_t pairs, uint32_t fill, Symbol* out, size_t count);

}  // namespace fastcnn::codec
