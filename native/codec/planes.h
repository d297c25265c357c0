// Byte planes back into words: byte i of every element lies in plane i, least significant first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastcnn::codec {

// Word: uint8_t, uint16_t, uint32_t or uint64_t; `planes` has sizeof(Word) pointers to `count` bytes each. With
// `rotate` the result is rotated right by one bit, which undoes the order "exponent".
template <typename Word>
void join_planes(const uint8_t* const* planes, size_t count, bool rotate, Word* out);

}  // namespace fastcnn::codec
