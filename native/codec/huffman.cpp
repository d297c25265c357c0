#include "codec/huffman.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace fastcnn::codec {
namespace {

void check_alphabet(uint32_t alphabet) {
  if (alphabet < 1 || alphabet > kMaxAlphabet)
    throw CodecError("alphabet of " + std::to_string(alphabet) + " symbols is not supported: 1 to 4096");
}

size_t present(const Table& lengths) {
  return static_cast<size_t>(std::count_if(lengths.begin(), lengths.end(), [](uint16_t v) { return v != 0; }));
}

uint32_t reversed(uint32_t code, unsigned length) {
  uint32_t out = 0;
  for (unsigned i = 0; i < length; ++i) out |= ((code >> i) & 1) << (length - 1 - i);
  return out;
}

// Canonical code words, bit-reversed for the LSB-first stream.
std::vector<uint16_t> code_words(const Table& lengths) {
  std::array<uint32_t, kMaxCodeLength + 1> start{}, used{};
  for (uint16_t length : lengths)
    if (length) ++used[length];
  uint32_t code = 0;
  for (unsigned l = 1; l <= kMaxCodeLength; ++l) {
    code = (code + used[l - 1]) << 1;
    start[l] = code;
  }
  std::vector<uint16_t> words(lengths.size(), 0);
  for (size_t s = 0; s < lengths.size(); ++s)
    if (lengths[s]) words[s] = static_cast<uint16_t>(reversed(start[lengths[s]]++, lengths[s]));
  return words;
}

struct Entry {  // what one look-up of T bits yields: one to three whole symbols
  uint16_t symbol[3];
  uint8_t bits;        // of all of them
  uint8_t count_bits;  // count in the low 2 bits, bits of the first symbol in the high 6
};

std::vector<Entry> decode_table(const Table& lengths, unsigned bits) {
  struct Single {
    uint16_t symbol;
    uint8_t length;
  };
  const size_t size = size_t{1} << bits;
  std::vector<Single> single(size, Single{0, 0});
  const std::vector<uint16_t> words = code_words(lengths);
  for (size_t s = 0; s < lengths.size(); ++s)
    if (lengths[s])
      for (size_t i = words[s]; i < size; i += size_t{1} << lengths[s])
        single[i] = Single{static_cast<uint16_t>(s), static_cast<uint8_t>(lengths[s])};
  std::vector<Entry> table(size);
  for (size_t i = 0; i < size; ++i) {
    Entry entry{};
    unsigned used = 0, count = 0;
    while (count < 3) {
      const Single next = single[i >> used];
      if (used + next.length > bits) break;
      entry.symbol[count++] = next.symbol;
      used += next.length;
    }
    entry.bits = static_cast<uint8_t>(used);
    entry.count_bits = static_cast<uint8_t>(count | (single[i].length << 2));
    table[i] = entry;
  }
  return table;
}

}  // namespace

template <typename Symbol>
std::vector<uint64_t> histogram(const Symbol* symbols, size_t count, uint32_t alphabet) {
  // Four tables, so that a run of equal symbols does not wait for its own last increment.
  const size_t room = size_t{1} << (8 * sizeof(Symbol));
  std::vector<uint64_t> counts(room * 4, 0);
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    ++counts[symbols[i]];
    ++counts[room + symbols[i + 1]];
    ++counts[2 * room + symbols[i + 2]];
    ++counts[3 * room + symbols[i + 3]];
  }
  for (; i < count; ++i) ++counts[symbols[i]];
  for (size_t s = 0; s < room; ++s) {
    counts[s] += counts[room + s] + counts[2 * room + s] + counts[3 * room + s];
    if (counts[s] && s >= alphabet)
      throw std::invalid_argument("symbol " + std::to_string(s) + " is outside its alphabet");
  }
  counts.resize(std::max<size_t>(alphabet, 1));
  return counts;
}

Table huffman_lengths(const std::vector<uint64_t>& counts) {
  std::vector<uint32_t> order;
  for (uint32_t s = 0; s < counts.size(); ++s)
    if (counts[s]) order.push_back(s);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return counts[a] < counts[b]; });
  Table lengths(counts.size(), 0);
  const size_t n = order.size();
  if (n == 1) lengths[order[0]] = 1;
  if (n < 2) return lengths;

  // Package-merge. packages[l] remembers, for the merged list of level l, which entries are leaves.
  std::vector<std::vector<bool>> is_leaf(kMaxCodeLength);
  std::vector<uint64_t> previous;
  for (unsigned level = 0; level < kMaxCodeLength; ++level) {
    std::vector<uint64_t> merged;
    size_t leaf = 0, pair = 0;
    while (leaf < n || pair + 1 < previous.size()) {
      const bool pairs_left = pair + 1 < previous.size();
      const uint64_t package = pairs_left ? previous[pair] + previous[pair + 1] : 0;
      const bool take_leaf = leaf < n && (!pairs_left || counts[order[leaf]] <= package);
      merged.push_back(take_leaf ? counts[order[leaf]] : package);
      is_leaf[level].push_back(take_leaf);
      if (take_leaf) {
        ++leaf;
      } else {
        pair += 2;
      }
    }
    previous = std::move(merged);
  }
  size_t need = 2 * n - 2;
  for (unsigned level = kMaxCodeLength; level-- > 0 && need > 0;) {
    size_t leaves = 0;
    for (size_t i = 0; i < need; ++i) leaves += is_leaf[level][i];
    for (size_t i = 0; i < leaves; ++i) ++lengths[order[i]];
    need = 2 * (need - leaves);
  }
  return lengths;
}

size_t huffman_size(const std::vector<uint64_t>& counts) {
  if (std::accumulate(counts.begin(), counts.end(), uint64_t{0}) == 0) return 0;
  const Table lengths = huffman_lengths(counts);
  uint64_t bits = 0;
  if (present(lengths) > 1)
    for (size_t s = 0; s < counts.size(); ++s) bits += counts[s] * lengths[s];
  return (table_bits(lengths) + 7) / 8 + static_cast<size_t>((bits + 7) / 8);
}

template <typename Symbol>
Bytes huffman_encode(const Symbol* symbols, size_t count, uint32_t alphabet) {
  check_alphabet(alphabet);
  Bytes out;
  if (count == 0) return out;
  const Table lengths = huffman_lengths(histogram(symbols, count, alphabet));
  BitWriter writer(out);
  write_table(writer, lengths);
  writer.finish();
  if (present(lengths) == 1) return out;
  const std::vector<uint16_t> words = code_words(lengths);
  for (size_t i = 0; i < count; ++i) writer.put(words[symbols[i]], lengths[symbols[i]]);
  writer.finish();
  return out;
}

template <typename Symbol>
void huffman_decode(const uint8_t* data, size_t size, Symbol* out, size_t count, uint32_t alphabet) {
  check_alphabet(alphabet);
  if (count == 0) {
    if (size != 0) throw CodecError("Huffman stream of no symbols has bytes");
    return;
  }
  BitReader reader(data, size, "Huffman table");
  const Table lengths = read_table(reader, alphabet, kMaxCodeLength);
  const size_t begin = reader.align();
  if (present(lengths) == 1) {
    const auto only = std::find_if(lengths.begin(), lengths.end(), [](uint16_t v) { return v != 0; });
    if (*only != 1 || begin != size) throw CodecError("Huffman stream of one symbol must hold its table only");
    std::fill_n(out, count, static_cast<Symbol>(only - lengths.begin()));
    return;
  }
  uint32_t kraft = 0;
  unsigned longest = 0;
  for (uint16_t length : lengths) {
    if (!length) continue;
    kraft += 1u << (kMaxCodeLength - length);
    longest = std::max<unsigned>(longest, length);
  }
  if (kraft != 1u << kMaxCodeLength) throw CodecError("Huffman code lengths do not form a complete code");

  const unsigned width = std::max(longest, count > 4096 ? 12u : 1u);
  const std::vector<Entry> table = decode_table(lengths, width);
  const uint64_t mask = (uint64_t{1} << width) - 1;
  const uint8_t* pos = data + begin;
  const uint8_t* const end = data + size;
  uint64_t acc = 0;
  unsigned fill = 0;
  size_t i = 0;
  // Three look-ups of at most 15 bits each per refill to at least 56 bits; each may write three symbols.
  while (end - pos >= 8 && count - i >= 9) {
    uint64_t word;
    std::memcpy(&word, pos, 8);  // the bit order is that of a little-endian load
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    acc |= word << fill;
    pos += (63 - fill) >> 3;
    fill |= 56;
    for (int k = 0; k < 3; ++k) {
      const Entry& entry = table[acc & mask];
      out[i] = static_cast<Symbol>(entry.symbol[0]);
      out[i + 1] = static_cast<Symbol>(entry.symbol[1]);
      out[i + 2] = static_cast<Symbol>(entry.symbol[2]);
      acc >>= entry.bits;
      fill -= entry.bits;
      i += entry.count_bits & 3;
    }
  }
  // The refill above leaves bits beyond `fill` in the accumulator; the slow end re-reads them.
  acc &= fill < 64 ? (uint64_t{1} << fill) - 1 : ~uint64_t{0};
  for (; i < count; ++i) {
    while (fill <= 48 && pos < end) {
      acc |= static_cast<uint64_t>(*pos++) << fill;
      fill += 8;
    }
    const Entry& entry = table[acc & mask];
    const unsigned length = entry.count_bits >> 2;
    if (length > fill) throw CodecError("Huffman stream ends early");
    out[i] = static_cast<Symbol>(entry.symbol[0]);
    acc >>= length;
    fill -= length;
  }
  if (pos != end || fill >= 8 || acc != 0) throw CodecError("Huffman stream goes on after its last symbol");
}

#define FASTCNN_INSTANTIATE(Symbol)                                                  \
  template std::vector<uint64_t> histogram<Symbol>(const Symbol*, size_t, uint32_t); \
  template Bytes huffman_encode<Symbol>(const Symbol*, size_t, uint32_t);            \
  template void huffman_decode<Symbol>(const uint8_t*, size_t, Symbol*, size_t, uint32_t);
FASTCNN_INSTANTIATE(uint8_t)
FASTCNN_INSTANTIATE(uint16_t)
#undef FASTCNN_INSTANTIATE

}  // namespace fastcnn::codec
