#include "codec/planes.h"

#include <array>

namespace fastcnn::codec {

template <typename Word>
void join_planes(const uint8_t* const* planes, size_t count, bool rotate, Word* out) {
  constexpr unsigned kBits = 8 * sizeof(Word);
  std::array<const uint8_t*, sizeof(Word)> plane;
  for (size_t k = 0; k < sizeof(Word); ++k) plane[k] = planes[k];
  for (size_t i = 0; i < count; ++i) {
    uint64_t word = 0;
    for (size_t k = 0; k < sizeof(Word); ++k) word |= static_cast<uint64_t>(plane[k][i]) << (8 * k);
    if (rotate) word = word >> 1 | (word & 1) << (kBits - 1);
    out[i] = static_cast<Word>(word);
  }
}

template void join_planes<uint8_t>(const uint8_t* const*, size_t, bool, uint8_t*);
template void join_planes<uint16_t>(const uint8_t* const*, size_t, bool, uint16_t*);
template void join_planes<uint32_t>(const uint8_t* const*, size_t, bool, uint32_t*);
template void join_planes<uint64_t>(const uint8_t* const*, size_t, bool, uint64_t*);

}  // namespace fastcnn::codec
