#include "codec/bits.h"

namespace fastcnn::codec {

template <typename Symbol>
Bytes pack(const Symbol* symbols, size_t count, unsigned bits) {
  if (bits > 16) throw std::invalid_argument("bits=" + std::to_string(bits) + " is not supported: 0 to 16");
  Bytes out;
  out.reserve(count / 8 * bits + bits + 1);
  BitWriter writer(out);
  for (size_t i = 0; i < count; ++i) {
    if (symbols[i] >> bits) throw std::invalid_argument("symbol does not fit the bits given");
    writer.put(symbols[i], bits);
  }
  writer.finish();
  return out;
}

template <typename Symbol>
void unpack(const uint8_t* data, size_t size, Symbol* out, size_t count, unsigned bits, uint32_t alphabet) {
  if (bits > 16) throw CodecError("bits per symbol must be 0 to 16, not " + std::to_string(bits));
  if (count > (SIZE_MAX >> 8)) throw CodecError("symbol count is too large");
  if (size != (count * bits + 7) / 8) throw CodecError("packed symbols have the wrong number of bytes");
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  uint64_t acc = 0;
  unsigned fill = 0;
  uint32_t largest = 0;
  size_t pos = 0;
  for (size_t i = 0; i < count; ++i) {
    while (fill < bits) {  // the size check above guarantees the bytes
      acc |= static_cast<uint64_t>(data[pos++]) << fill;
      fill += 8;
    }
    const uint32_t symbol = static_cast<uint32_t>(acc & mask);
    acc >>= bits;
    fill -= bits;
    largest = symbol > largest ? symbol : largest;
    out[i] = static_cast<Symbol>(symbol);
  }
  if (acc != 0) throw CodecError("packed symbols have bits set in their padding");
  if (count > 0 && largest >= alphabet) throw CodecError("packed symbol is outside its alphabet");
}

template Bytes pack<uint8_t>(const uint8_t*, size_t, unsigned);
template Bytes pack<uint16_t>(const uint16_t*, size_t, unsigned);
template void unpack<uint8_t>(const uint8_t*, size_t, uint8_t*, size_t, unsigned, uint32_t);
template void unpack<uint16_t>(const uint8_t*, size_t, uint16_t*, size_t, unsigned, uint32_t);

}  // namespace fastcnn::codec
