#include "codec/sparse.h"

#include <algorithm>

namespace fastcnn::codec {

template <typename Symbol>
Pairs sparse_split(const Symbol* symbols, size_t count, uint32_t fill, unsigned gap_bits) {
  if (gap_bits < 1 || gap_bits > kMaxGapBits)
    throw std::invalid_argument("gap_bits=" + std::to_string(gap_bits) + " is not supported: 1 to 12");
  const size_t reach = size_t{1} << gap_bits;
  Pairs pairs;
  size_t next = 0;  // first position not yet covered by a pair
  for (size_t i = 0; i < count; ++i) {
    if (symbols[i] == fill) continue;
    for (; i - next >= reach; next += reach) {
      pairs.gaps.push_back(static_cast<uint16_t>(reach - 1));
      pairs.values.push_back(static_cast<uint16_t>(fill));
    }
    pairs.gaps.push_back(static_cast<uint16_t>(i - next));
    pairs.values.push_back(symbols[i]);
    next = i + 1;
  }
  return pairs;
}

template <typename Symbol>
void sparse_join(const uint16_t* gaps, const uint16_t* values, size_t pairs, uint32_t fill, Symbol* out, size_t count) {
  std::fill_n(out, count, static_cast<Symbol>(fill));
  size_t next = 0;
  for (size_t i = 0; i < pairs; ++i) {
    if (gaps[i] >= count - next) throw CodecError("gaps of the sparse form run past the end of the array");
    next += gaps[i];
    out[next++] = static_cast<Symbol>(values[i]);
  }
}

#define FASTCNN_INSTANTIATE(Symbol)                                               \
  template Pairs sparse_split<Symbol>(const Symbol*, size_t, uint32_t, unsigned); \
  template void sparse_join<Symbol>(const uint16_t*, const uint16_t*, size_t, uint32_t, Symbol*, size_t);
FASTCNN_INSTANTIATE(uint8_t)
FASTCNN_INSTANTIATE(uint16_t)
#undef FASTCNN_INSTANTIATE

}  // namespace fastcnn::codec
