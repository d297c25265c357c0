// Canonical Huffman codes, at most 15 bits, built by package-merge.
//
// Stream: the table of code lengths (table.h), zero-padded to a byte; then the code words, each most significant
// code bit first, zero-padded to a byte. Where one symbol occurs alone its table value is 1 and no code word is stored.
#pragma once

#include "codec/table.h"

namespace fastcnn::codec {

inline constexpr unsigned kMaxCodeLength = 15;

// Optimal lengths in 1..kMaxCodeLength for every symbol with a count; 0 elsewhere.
Table huffman_lengths(const std::vector<uint64_t>& counts);

// Bytes huffman_encode would give for symbols with these counts.
size_t huffman_size(const std::vector<uint64_t>& counts);

template <typename Symbol>
Bytes huffman_encode(const Symbol* symbols, size_t count, uint32_t alphabet);

// Writes exactly `count` symbols below `alphabet` or throws CodecError. Never reads outside [data, data + size).
template <typename Symbol>
void huffman_decode(const uint8_t* data, size_t size, Symbol* out, size_t count, uint32_t alphabet);

// Occurrences of each symbol; throws invalid_argument if one is not below `alphabet`.
template <typename Symbol>
std::vector<uint64_t> histogram(const Symbol* symbols, size_t count, uint32_t alphabet);

}  // namespace fastcnn::codec
