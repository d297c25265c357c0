#include "codec/table.h"

namespace fastcnn::codec {
namespace {

uint32_t zigzag(int32_t value) {
  return value < 0 ? static_cast<uint32_t>(-value) * 2 - 1 : static_cast<uint32_t>(value) * 2;
}

struct Counter {  // a BitWriter that only counts
  size_t bits = 0;
  void put(uint32_t, unsigned n) { bits += n; }
};

template <typename Writer>
void put_gamma(Writer& writer, uint32_t value) {  // value >= 1
  const unsigned length = bit_length(value);
  writer.put(0, length - 1);
  writer.put(1, 1);
  writer.put(value & ((1u << (length - 1)) - 1), length - 1);
}

uint32_t take_gamma(BitReader& reader) {
  unsigned zeros = 0;
  while (reader.take(1) == 0)
    if (++zeros > 13) throw CodecError("run length in a symbol table is too long");
  return (1u << zeros) | reader.take(zeros);
}

// Bits of the Rice-coded differences, or SIZE_MAX where a quotient is too long for the format.
size_t rice_bits(const std::vector<uint32_t>& differences, unsigned r) {
  size_t bits = 0;
  for (uint32_t d : differences) {
    if ((d >> r) > kMaxUnary) return SIZE_MAX;
    bits += (d >> r) + 1 + r;
  }
  return bits;
}

template <typename Writer>
void write(Writer& writer, const Table& values) {
  std::vector<uint32_t> differences;
  uint32_t first = 0, previous = 0;
  bool all = true, any = false;
  for (uint16_t value : values) {
    if (value == 0) {
      all = false;
      continue;
    }
    if (any) differences.push_back(zigzag(static_cast<int32_t>(value) - static_cast<int32_t>(previous)));
    if (!any) first = value;
    any = true;
    previous = value;
  }
  writer.put(all, 1);
  if (!all) {
    bool present = false;
    for (size_t i = 0; i < values.size();) {
      size_t end = i;
      while (end < values.size() && (values[end] != 0) == present) ++end;
      put_gamma(writer, static_cast<uint32_t>(end - i) + (i == 0 && !present ? 1 : 0));
      i = end;
      present = !present;
    }
  }
  unsigned best = 0;
  size_t best_bits = SIZE_MAX;
  for (unsigned r = 0; r < 13; ++r) {
    const size_t bits = rice_bits(differences, r);
    if (bits < best_bits) {
      best = r;
      best_bits = bits;
    }
  }
  writer.put(best, 4);
  writer.put(first, 12);
  for (uint32_t d : differences) {
    for (uint32_t q = d >> best; q > 0; --q) writer.put(1, 1);
    writer.put(0, 1);
    writer.put(d & ((1u << best) - 1), best);
  }
}

}  // namespace

size_t table_bits(const Table& values) {
  Counter counter;
  write(counter, values);
  return counter.bits;
}

void write_table(BitWriter& writer, const Table& values) { write(writer, values); }

Table read_table(BitReader& reader, uint32_t alphabet, uint32_t limit) {
  Table values(alphabet, 0);
  std::vector<uint32_t> present;
  present.reserve(alphabet);
  if (reader.take(1)) {
    for (uint32_t i = 0; i < alphabet; ++i) present.push_back(i);
  } else {
    bool on = false;
    for (uint32_t i = 0; i < alphabet; on = !on) {
      uint32_t run = take_gamma(reader);
      if (i == 0 && !on) --run;  // only the first run may be empty
      if (run > alphabet - i) throw CodecError("runs in a symbol table exceed its alphabet");
      for (uint32_t end = i + run; i < end; ++i)
        if (on) present.push_back(i);
    }
  }
  if (present.empty()) throw CodecError("symbol table names no symbol");
  const unsigned r = reader.take(4);
  int64_t value = reader.take(12);
  for (size_t i = 0; i < present.size(); ++i) {
    if (i > 0) {
      uint32_t quotient = 0;
      while (reader.take(1))
        if (++quotient > kMaxUnary) throw CodecError("difference in a symbol table is too large");
      const uint32_t d = (quotient << r) | reader.take(r);
      value += (d & 1) ? -static_cast<int64_t>((d + 1) / 2) : static_cast<int64_t>(d / 2);
    }
    if (value < 1 || value > static_cast<int64_t>(limit)) throw CodecError("value in a symbol table is out of range");
    values[present[i]] = static_cast<uint16_t>(value);
  }
  return values;
}

}  // namespace fastcnn::codec
