// Round trips and damaged streams, for a build with -fsanitize=address,undefined: every buffer has exactly its size,
// so one byte read or written too far ends the program. Argument: number of damaged streams per coder (default 20000).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "codec/bits.h"
#include "codec/distinct.h"
#include "codec/huffman.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "codec/sparse.h"

namespace codec = fastcnn::codec;

namespace {

std::mt19937_64 rng(20240607);

uint64_t below(uint64_t n) { return n == 0 ? 0 : rng() % n; }

// A copy on the heap of exactly this size, so that AddressSanitizer guards its end.
struct Exact {
  explicit Exact(const codec::Bytes& bytes) : size(bytes.size()), data(new uint8_t[bytes.size()]) {
    std::copy(bytes.begin(), bytes.end(), data.get());
  }
  size_t size;
  std::unique_ptr<uint8_t[]> data;
};

void require(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::exit(1);
}

template <typename Symbol>
std::vector<Symbol> random_symbols(size_t count, uint32_t alphabet) {
  std::vector<Symbol> symbols(count);
  const unsigned shape = static_cast<unsigned>(below(5));
  const uint32_t often = static_cast<uint32_t>(below(alphabet));
  for (Symbol& s : symbols) {
    uint64_t value = below(alphabet);
    if (shape == 1) value = std::min<uint64_t>(below(1 + below(alphabet)), value);
    if (shape == 2 && below(100) != 0) value = often;
    if (shape == 3) value = often;
    if (shape == 4) value = below(2) ? often : alphabet - 1;
    s = static_cast<Symbol>(value);
  }
  return symbols;
}

codec::Bytes damaged(codec::Bytes bytes) {
  for (uint64_t n = 1 + below(4); n > 0; --n) {
    const size_t at = below(bytes.size() + 1);
    switch (below(5)) {
      case 0:
        if (at < bytes.size()) bytes[at] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<uint8_t>(rng());
        break;
      case 2:
        bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(rng()));
        break;
      case 3:
        if (at < bytes.size()) bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at));
        break;
      default:
        if (below(4) == 0) bytes.resize(at);
    }
  }
  return bytes;
}

template <typename Symbol, typename Decode>
bool decodes(const codec::Bytes& bytes, std::vector<Symbol>& out, Decode decode) {
  const Exact input(bytes);
  std::unique_ptr<Symbol[]> symbols(new Symbol[out.size()]);
  try {
    decode(input.data.get(), input.size, symbols.get());
  } catch (const codec::CodecError&) {
    return false;
  }
  std::copy_n(symbols.get(), out.size(), out.begin());
  return true;
}

template <typename Symbol, typename Encode, typename Decode>
void exercise(const char* name, long cases, uint32_t largest, Encode encode, Decode decode) {
  long accepted = 0;
  for (long i = 0; i < cases; ++i) {
    const uint32_t alphabet = static_cast<uint32_t>(1 + below(below(3) ? std::min(largest, 40u) : largest));
    static constexpr size_t kCounts[] = {0, 1, 2, 3, 8, 9, 17, 100, 1023, 4095, 4097, 8191, 8192, 8193, 9001};
    const size_t count = below(10) ? kCounts[below(8)] : kCounts[below(std::size(kCounts))];
    const std::vector<Symbol> symbols = random_symbols<Symbol>(count, alphabet);
    const codec::Bytes bytes = encode(symbols, alphabet);
    const auto run = [&](const uint8_t* data, size_t size, Symbol* out) { decode(data, size, out, count, alphabet); };
    std::vector<Symbol> out(count);
    require(decodes(bytes, out, run) && out == symbols, name);
    for (int k = 0; k < 4; ++k) {
      std::vector<Symbol> other(count);
      if (!decodes(damaged(bytes), other, run)) continue;
      ++accepted;
      for (Symbol s : other) require(s < alphabet, "a damaged stream gave a symbol outside its alphabet");
    }
  }
  std::printf("%s: %ld round trips, %ld of %ld damaged streams decoded to symbols of the alphabet\n", name, cases,
              accepted, 4 * cases);
}

template <typename Symbol>
void exercise_all(long cases, uint32_t largest) {
  exercise<Symbol>(
      "huffman", cases, largest,
      [](const std::vector<Symbol>& s, uint32_t a) { return codec::huffman_encode(s.data(), s.size(), a); },
      [](auto... x) { codec::huffman_decode(x...); });
  exercise<Symbol>(
      "rans", cases, largest,
      [](const std::vector<Symbol>& s, uint32_t a) { return codec::rans_encode(s.data(), s.size(), a); },
      [](auto... x) { codec::rans_decode(x...); });
  exercise<Symbol>(
      "packed", cases, largest,
      [](const std::vector<Symbol>& s, uint32_t a) {
        return codec::pack(s.data(), s.size(), codec::bit_length(a - 1));
      },
      [](const uint8_t* data, size_t size, Symbol* out, size_t count, uint32_t a) {
        codec::unpack(data, size, out, count, codec::bit_length(a - 1), a);
      });
}

// Tables from random bytes: the frequencies must add up whatever the table says.
void random_tables(long cases) {
  for (long i = 0; i < cases; ++i) {
    codec::Bytes bytes(1 + below(60));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng() & rng());
    const uint32_t alphabet = static_cast<uint32_t>(1 + below(300));
    const size_t count = below(50);
    std::vector<uint8_t> out8(count);
    std::vector<uint16_t> out16(count);
    const auto both = [&](auto decode, auto& out) {
      decodes(bytes, out, [&](const uint8_t* d, size_t n, auto* o) { decode(d, n, o, count, alphabet); });
    };
    if (alphabet <= 256) {
      both([](auto... x) { codec::rans_decode(x...); }, out8);
      both([](auto... x) { codec::huffman_decode(x...); }, out8);
    }
    both([](auto... x) { codec::rans_decode(x...); }, out16);
    both([](auto... x) { codec::huffman_decode(x...); }, out16);
    codec::Table table(alphabet);
    for (uint16_t& q : table) q = static_cast<uint16_t>(below(3) ? 0 : below(24u << 7));
    table[below(alphabet)] = 1;
    const unsigned mantissa = static_cast<unsigned>(below(8)), precision = static_cast<unsigned>(9 + below(7));
    for (uint16_t& q : table) q = std::min<uint16_t>(q, static_cast<uint16_t>(24u << mantissa));
    uint64_t sum = 0;
    for (uint32_t f : codec::normalise(table, mantissa, precision)) sum += f;
    require(sum == uint64_t{1} << precision, "frequencies do not add up");
  }
}

void sparse(long cases) {
  for (long i = 0; i < cases; ++i) {
    const size_t count = below(3000);
    const unsigned bits = static_cast<unsigned>(1 + below(codec::kMaxGapBits));
    const uint32_t fill = static_cast<uint32_t>(below(4));
    std::vector<uint8_t> symbols(count);
    const uint64_t rarity = 1 + below(200);
    for (uint8_t& s : symbols) s = static_cast<uint8_t>(below(rarity) ? fill : below(9));
    const codec::Pairs pairs = codec::sparse_split(symbols.data(), count, fill, bits);
    std::unique_ptr<uint8_t[]> out(new uint8_t[count]);
    codec::sparse_join(pairs.gaps.data(), pairs.values.data(), pairs.gaps.size(), fill, out.get(), count);
    require(std::equal(symbols.begin(), symbols.end(), out.get()), "sparse");
    std::vector<uint16_t> gaps = pairs.gaps;
    if (gaps.empty()) continue;
    gaps[below(gaps.size())] = static_cast<uint16_t>(rng());
    try {
      codec::sparse_join(gaps.data(), pairs.values.data(), gaps.size(), fill, out.get(), count);
    } catch (const codec::CodecError&) {
    }
    const std::vector<uint8_t> found = codec::distinct(symbols.data(), count, 16);
    const std::vector<uint16_t> places = codec::index_of(symbols.data(), count, found.data(), found.size());
    for (size_t k = 0; k < count; ++k) require(found[places[k]] == symbols[k], "distinct");
  }
}

void planes() {
  for (size_t count : {0, 1, 7, 64, 1001}) {
    std::vector<std::unique_ptr<uint8_t[]>> bytes;
    std::vector<const uint8_t*> pointers;
    for (int k = 0; k < 4; ++k) {
      bytes.emplace_back(new uint8_t[count]);
      for (size_t i = 0; i < count; ++i) bytes.back()[i] = static_cast<uint8_t>(rng());
      pointers.push_back(bytes.back().get());
    }
    std::unique_ptr<uint32_t[]> plain(new uint32_t[count]), turned(new uint32_t[count]);
    codec::join_planes(pointers.data(), count, false, plain.get());
    codec::join_planes(pointers.data(), count, true, turned.get());
    for (size_t i = 0; i < count; ++i) {
      uint32_t word = 0;
      for (int k = 3; k >= 0; --k) word = word << 8 | bytes[static_cast<size_t>(k)][i];
      require(plain[i] == word && turned[i] == (word >> 1 | word << 31), "planes");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 20000;
  exercise_all<uint8_t>(cases, 256);
  exercise_all<uint16_t>(cases, 4096);
  random_tables(cases);
  sparse(cases / 10);
  planes();
  std::puts("ok");
  return 0;
}
