// Choosing and rebuilding the frequency table of a rANS stream.
#include <algorithm>
#include <numeric>

#include "codec/rans.h"

namespace fastcnn::codec {
namespace {

// log2(value) in 1/65536 by repeated squaring: exact integer arithmetic, the same on every machine.
uint64_t log2_q16(uint64_t value) {
  const unsigned top = bit_length(value) - 1;
  uint64_t x = top <= 31 ? value << (31 - top) : value >> (top - 31);  // 1.31 fixed point in [1, 2)
  uint64_t result = static_cast<uint64_t>(top) << 16;
  for (int bit = 15; bit >= 0; --bit) {
    x = (x * x) >> 31;
    if (x >> 32) {
      x >>= 1;
      result |= uint64_t{1} << bit;
    }
  }
  return result;
}

// The q whose small float lies nearest to value.
uint16_t quantise(uint64_t value, unsigned m) {
  if (value < (uint64_t{2} << m)) return static_cast<uint16_t>(value);
  const unsigned e = bit_length(value) - 1 - m;
  const uint64_t rounded = (value + (uint64_t{1} << (e - 1))) >> e;  // may reach 2^(m+1): the next exponent's first
  return static_cast<uint16_t>((static_cast<uint64_t>(e) << m) + rounded);
}

}  // namespace

uint64_t small_float(uint32_t q, unsigned m) {
  if (q < (2u << m)) return q;
  const unsigned e = (q >> m) - 1;
  return static_cast<uint64_t>((q & ((1u << m) - 1)) | (1u << m)) << e;
}

std::vector<uint32_t> normalise(const Table& quantised, unsigned mantissa, unsigned precision) {
  const int64_t total = int64_t{1} << precision;
  std::vector<uint64_t> weights(quantised.size());
  std::vector<uint32_t> order;
  uint64_t sum = 0;
  for (uint32_t s = 0; s < quantised.size(); ++s) {
    weights[s] = small_float(quantised[s], mantissa);
    sum += weights[s];
    if (weights[s]) order.push_back(s);
  }
  if (order.empty() || static_cast<int64_t>(order.size()) > total)
    throw CodecError("frequency table has more symbols than its precision allows");
  std::vector<uint32_t> frequencies(quantised.size(), 0);
  int64_t excess = -total;
  for (uint32_t s : order) {
    frequencies[s] = static_cast<uint32_t>(std::max<uint64_t>(1, (weights[s] * total + sum / 2) / sum));
    excess += frequencies[s];
  }
  // Rounding leaves a small excess or lack; take it from (or give it to) the likeliest symbols first, each by its
  // share, so that no rare symbol doubles its cost.
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return frequencies[a] > frequencies[b]; });
  while (excess != 0) {
    const int64_t pass = std::abs(excess);
    for (uint32_t s : order) {
      if (excess == 0) break;
      const int64_t share = std::max<int64_t>(1, frequencies[s] * pass / total);
      if (excess > 0) {
        const int64_t step = std::min({share, excess, static_cast<int64_t>(frequencies[s]) - 1});
        frequencies[s] -= static_cast<uint32_t>(step);
        excess -= step;
      } else {
        const int64_t step = std::min(share, -excess);
        frequencies[s] += static_cast<uint32_t>(step);
        excess += step;
      }
    }
  }
  return frequencies;
}

RansPlan rans_plan(const std::vector<uint64_t>& counts) {
  RansPlan best;
  const uint64_t total = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  if (total == 0) return best;
  const size_t present =
      static_cast<size_t>(std::count_if(counts.begin(), counts.end(), [](uint64_t c) { return c > 0; }));
  const unsigned shift = bit_length(total) > 16 ? bit_length(total) - 16 : 0;
  const size_t states = present == 1 ? 0 : 4 * (total < kOneLaneBelow ? 1 : kLanes);
  // Of the 32 bits of a lane's stored state about 8 replace bits of the words; 24 are the price of the lane.
  const size_t saved = states / 4;
  const unsigned least = std::max(1u, bit_length(present - 1));
  const unsigned most_mantissa = present == 1 ? 0 : 6;
  best.bytes = SIZE_MAX;
  for (unsigned m = 0; m <= most_mantissa; ++m) {
    Table quantised(counts.size(), 0);
    for (size_t s = 0; s < counts.size(); ++s)
      if (counts[s]) quantised[s] = quantise(std::max<uint64_t>(1, counts[s] >> shift), m);
    const size_t table = (table_bits(quantised) + 7) / 8;
    if (1 + table >= best.bytes) continue;
    // More precision never costs bytes beyond noise, but a larger decoding table: try few, from the coarsest up.
    for (unsigned precision : {8u, 10u, 12u, 14u, 15u}) {
      if (precision < least) continue;
      if (present == 1 && precision > 8) break;
      const std::vector<uint32_t> frequencies = normalise(quantised, m, precision);
      uint64_t cost_q16 = 0;  // bits / 65536
      for (size_t s = 0; s < counts.size(); ++s)
        if (counts[s]) cost_q16 += counts[s] * ((static_cast<uint64_t>(precision) << 16) - log2_q16(frequencies[s]));
      const size_t payload = static_cast<size_t>((cost_q16 / 65536 + 7) / 8);
      const size_t bytes = 1 + table + states + (payload > saved ? payload - saved : 0);
      if (bytes < best.bytes) best = RansPlan{precision, m, quantised, bytes};
    }
  }
  return best;
}

}  // namespace fastcnn::codec
