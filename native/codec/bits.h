// Bit streams, least significant bit first: bit i of the stream is bit (i mod 8) of byte i/8. The last byte is
// padded with zero bits, and a reader insists on that, so one array has exactly one packed form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastcnn::codec {

// A damaged or hostile stream. Derives from invalid_argument so that Python sees a ValueError.
struct CodecError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

inline constexpr uint32_t kMaxAlphabet = 4096;  // symbols of an entropy coder are 0 .. alphabet-1

using Bytes = std::vector<uint8_t>;

class BitWriter {
 public:
  explicit BitWriter(Bytes& out) : out_(out) {}

  // Append the `bits` low bits of `value`; bits <= 32.
  void put(uint32_t value, unsigned bits) {
    acc_ |= static_cast<uint64_t>(value) << fill_;
    fill_ += bits;
    while (fill_ >= 8) {
      out_.push_back(static_cast<uint8_t>(acc_));
      acc_ >>= 8;
      fill_ -= 8;
    }
  }

  void finish() {
    if (fill_ > 0) out_.push_back(static_cast<uint8_t>(acc_));
    acc_ = 0;
    fill_ = 0;
  }

 private:
  Bytes& out_;
  uint64_t acc_ = 0;
  unsigned fill_ = 0;
};

// Reads at most `size` bytes; every read is checked. For the short tables; the symbol loops have their own refill.
class BitReader {
 public:
  BitReader(const uint8_t* data, size_t size, const char* what) : data_(data), bits_(size * 8), what_(what) {}

  uint32_t take(unsigned bits) {
    if (bits > bits_ - pos_) throw CodecError(std::string(what_) + " ends early");
    uint32_t value = 0;
    for (unsigned i = 0; i < bits; ++i, ++pos_)
      value |= static_cast<uint32_t>((data_[pos_ >> 3] >> (pos_ & 7)) & 1) << i;
    return value;
  }

  // Skip to the next byte boundary; the skipped bits must be zero. Returns bytes read so far.
  size_t align() {
    while (pos_ & 7)
      if (take(1) != 0) throw CodecError(std::string(what_) + " has bits set in its padding");
    return pos_ >> 3;
  }

 private:
  const uint8_t* data_;
  size_t bits_;
  size_t pos_ = 0;
  const char* what_;
};

inline unsigned bit_length(uint64_t value) {
  unsigned n = 0;
  for (; value; value >>= 1) ++n;
  return n;
}

// Fixed-width packing of symbols, bits in 0..16. With bits == 0 every symbol is 0 and nothing is stored.
template <typename Symbol>
Bytes pack(const Symbol* symbols, size_t count, unsigned bits);

// Throws CodecError unless data holds exactly `count` symbols of `bits` bits, each below `alphabet`.
template <typename Symbol>
void unpack(const uint8_t* data, size_t size, Symbol* out, size_t count, unsigned bits, uint32_t alphabet);

}  // namespace fastcnn::codec
