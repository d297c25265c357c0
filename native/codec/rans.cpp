#include "codec/rans.h"

#include <algorithm>

#include "codec/huffman.h"

namespace fastcnn::codec {
namespace {

constexpr uint32_t kLow = 1u << 16;  // states stay in [2^16, 2^32)

struct Slot {  // one per value of the low M bits of a state
  uint16_t frequency;
  uint16_t bias;
  uint16_t symbol;
  uint16_t unused;
};

uint32_t load_u16(const uint8_t* p) { return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8; }
uint32_t load_u32(const uint8_t* p) { return load_u16(p) | load_u16(p + 2) << 16; }

void push_u16(Bytes& out, uint32_t v) {
  out.push_back(static_cast<uint8_t>(v));
  out.push_back(static_cast<uint8_t>(v >> 8));
}

size_t lanes_for(size_t count) { return count < kOneLaneBelow ? 1 : kLanes; }

void check_alphabet(uint32_t alphabet) {
  if (alphabet < 1 || alphabet > kMaxAlphabet)
    throw CodecError("alphabet of " + std::to_string(alphabet) + " symbols is not supported: 1 to 4096");
}

template <size_t N, typename Symbol>
void decode_lanes(const uint8_t* pos, const uint8_t* end, Symbol* out, size_t count, const Slot* slots,
                  unsigned precision) {
  if (static_cast<size_t>(end - pos) < 4 * N) throw CodecError("rANS stream ends before its states");
  uint32_t state[N];
  for (size_t lane = 0; lane < N; ++lane, pos += 4) {
    state[lane] = load_u32(pos);
    if (state[lane] < kLow) throw CodecError("rANS state is below its range");
  }
  const uint32_t mask = (1u << precision) - 1;
  size_t i = 0;
  // A round takes at most one word per lane, so no check is needed inside it.
  while (count - i >= N && static_cast<size_t>(end - pos) >= 2 * N) {
    for (size_t lane = 0; lane < N; ++lane) {
      const Slot slot = slots[state[lane] & mask];
      out[i + lane] = static_cast<Symbol>(slot.symbol);
      uint32_t x = slot.frequency * (state[lane] >> precision) + slot.bias;
      const uint32_t refilled = x << 16 | load_u16(pos);
      const bool low = x < kLow;
      pos += low ? 2 : 0;
      state[lane] = low ? refilled : x;
    }
    i += N;
  }
  for (size_t lane = 0; i < count; ++i, lane = (lane + 1) % N) {
    const Slot slot = slots[state[lane] & mask];
    out[i] = static_cast<Symbol>(slot.symbol);
    uint32_t x = slot.frequency * (state[lane] >> precision) + slot.bias;
    if (x < kLow) {
      if (end - pos < 2) throw CodecError("rANS stream ends early");
      x = x << 16 | load_u16(pos);
      pos += 2;
    }
    state[lane] = x;
  }
  for (uint32_t x : state)
    if (x != kLow) throw CodecError("rANS stream does not end in its first state: it is damaged");
  if (pos != end) throw CodecError("rANS stream goes on after its last symbol");
}

template <size_t N, typename Symbol>
void encode_lanes(Bytes& out, const Symbol* symbols, size_t count, const std::vector<uint32_t>& frequencies,
                  unsigned precision) {
  std::vector<uint32_t> start(frequencies.size() + 1, 0);
  for (size_t s = 0; s < frequencies.size(); ++s) start[s + 1] = start[s] + frequencies[s];
  uint32_t state[N];
  std::fill_n(state, N, kLow);
  std::vector<uint16_t> words;  // in the encoder's order, the reverse of the decoder's
  for (size_t i = count; i-- > 0;) {
    uint32_t& x = state[i % N];
    const uint32_t f = frequencies[symbols[i]];
    if (x >= static_cast<uint64_t>(f) << (32 - precision)) {
      words.push_back(static_cast<uint16_t>(x));
      x >>= 16;
    }
    x = (x / f << precision) + x % f + start[symbols[i]];
  }
  out.reserve(out.size() + 4 * N + 2 * words.size());
  for (uint32_t x : state) {
    push_u16(out, x & 0xffff);
    push_u16(out, x >> 16);
  }
  for (size_t i = words.size(); i-- > 0;) push_u16(out, words[i]);
}

}  // namespace

template <typename Symbol>
Bytes rans_encode(const Symbol* symbols, size_t count, uint32_t alphabet) {
  check_alphabet(alphabet);
  Bytes out;
  if (count == 0) return out;
  const RansPlan plan = rans_plan(histogram(symbols, count, alphabet));
  const std::vector<uint32_t> frequencies = normalise(plan.quantised, plan.mantissa, plan.precision);
  const bool eight = lanes_for(count) == kLanes;
  out.push_back(static_cast<uint8_t>(plan.precision | plan.mantissa << 4 | (eight ? 0x80 : 0)));
  BitWriter writer(out);
  write_table(writer, plan.quantised);
  writer.finish();
  if (*std::max_element(frequencies.begin(), frequencies.end()) == 1u << plan.precision) return out;
  if (eight) {
    encode_lanes<kLanes>(out, symbols, count, frequencies, plan.precision);
  } else {
    encode_lanes<1>(out, symbols, count, frequencies, plan.precision);
  }
  return out;
}

template <typename Symbol>
void rans_decode(const uint8_t* data, size_t size, Symbol* out, size_t count, uint32_t alphabet) {
  check_alphabet(alphabet);
  if (count == 0) {
    if (size != 0) throw CodecError("rANS stream of no symbols has bytes");
    return;
  }
  if (size < 1) throw CodecError("rANS stream is empty");
  const unsigned precision = data[0] & 15, mantissa = (data[0] >> 4) & 7;
  const bool eight = data[0] >> 7;
  if (precision == 0) throw CodecError("rANS precision must be 1 to 15, not 0");
  if (eight != (lanes_for(count) == kLanes)) throw CodecError("rANS stream has the wrong number of lanes");
  BitReader reader(data + 1, size - 1, "rANS table");
  // Weights below 2^24 keep weight * 2^15 * alphabet far inside 64 bits.
  const Table quantised = read_table(reader, alphabet, std::min<uint32_t>(kMaxTableValue, 24u << mantissa));
  const size_t begin = 1 + reader.align();
  const std::vector<uint32_t> frequencies = normalise(quantised, mantissa, precision);
  std::vector<Slot> slots(size_t{1} << precision);
  size_t at = 0;
  for (size_t s = 0; s < frequencies.size(); ++s) {
    if (frequencies[s] == slots.size()) {
      if (begin != size) throw CodecError("rANS stream of one symbol must hold its table only");
      std::fill_n(out, count, static_cast<Symbol>(s));
      return;
    }
    for (uint32_t k = 0; k < frequencies[s]; ++k)
      slots[at++] = Slot{static_cast<uint16_t>(frequencies[s]), static_cast<uint16_t>(k), static_cast<uint16_t>(s), 0};
  }
  if (eight) {
    decode_lanes<kLanes>(data + begin, data + size, out, count, slots.data(), precision);
  } else {
    decode_lanes<1>(data + begin, data + size, out, count, slots.data(), precision);
  }
}

#define FASTCNN_INSTANTIATE(Symbol)                                    \
  template Bytes rans_encode<Symbol>(const Symbol*, size_t, uint32_t); \
  template void rans_decode<Symbol>(const uint8_t*, size_t, Symbol*, size_t, uint32_t);
FASTCNN_INSTANTIATE(uint8_t)
FASTCNN_INSTANTIATE(uint16_t)
#undef FASTCNN_INSTANTIATE

}  // namespace fastcnn::codec
