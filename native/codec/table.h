// The compact form of a symbol table: one small number per symbol of the alphabet (a Huffman code length, a
// quantised frequency), zero for a symbol that does not occur.
//
//   1 bit        every symbol occurs
//   runs         otherwise: lengths of runs of absent and present symbols in turn, Elias gamma, absent first (+1)
//   4 bits       Rice parameter r
//   12 bits      value of the first present symbol
//   per symbol   zigzag(value - previous value): quotient by 2^r in unary (at most kMaxUnary ones), then r bits
//
// Codebooks are stored in order of value, so neighbouring frequencies are alike and differences stay small: about
// three bits a symbol where a plain table takes twelve.
#pragma once

#include <vector>

#include "codec/bits.h"

namespace fastcnn::codec {

using Table = std::vector<uint16_t>;

inline constexpr uint32_t kMaxTableValue = 4095;
inline constexpr uint32_t kMaxUnary = 40;

// Bits that write_table would append.
size_t table_bits(const Table& values);

void write_table(BitWriter& writer, const Table& values);

// Reads one value for each of `alphabet` symbols; throws CodecError if a value exceeds `limit` or none occurs.
Table read_table(BitReader& reader, uint32_t alphabet, uint32_t limit);

}  // namespace fastcnn::codec
