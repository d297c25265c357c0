#include "codec/distinct.h"

#include <stdexcept>
#include <string>

namespace fastcnn::codec {
namespace {

constexpr size_t kLimit = 65535;
constexpr unsigned kSlotBits = 17;  // open addressing, at most half full

template <typename Pattern>
class PatternMap {
 public:
  PatternMap() : keys_(size_t{1} << kSlotBits), places_(size_t{1} << kSlotBits, 0) {}

  // The 1-based place of `key`, or a reference to 0 where it can be entered.
  uint32_t& find(Pattern key) {
    size_t slot = static_cast<size_t>((static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u) >> (64 - kSlotBits));
    while (places_[slot] != 0 && keys_[slot] != key) slot = (slot + 1) & ((size_t{1} << kSlotBits) - 1);
    keys_[slot] = key;
    return places_[slot];
  }

 private:
  std::vector<Pattern> keys_;
  std::vector<uint32_t> places_;
};

}  // namespace

template <typename Pattern>
std::vector<Pattern> distinct(const Pattern* data, size_t count, size_t limit) {
  if (limit > kLimit)
    throw std::invalid_argument("limit=" + std::to_string(limit) + " is not supported: at most 65535");
  PatternMap<Pattern> map;
  std::vector<Pattern> found;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0 && data[i] == data[i - 1]) continue;
    uint32_t& place = map.find(data[i]);
    if (place != 0) continue;
    if (found.size() == limit) return {};
    found.push_back(data[i]);
    place = static_cast<uint32_t>(found.size());
  }
  return found;
}

template <typename Pattern>
std::vector<uint16_t> index_of(const Pattern* data, size_t count, const Pattern* patterns, size_t pattern_count) {
  if (pattern_count > kLimit) throw std::invalid_argument("at most 65535 patterns are supported");
  PatternMap<Pattern> map;
  for (size_t i = 0; i < pattern_count; ++i) map.find(patterns[i]) = static_cast<uint32_t>(i + 1);
  std::vector<uint16_t> out(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t place = map.find(data[i]);
    if (place == 0) throw std::invalid_argument("an element is not among the patterns");
    out[i] = static_cast<uint16_t>(place - 1);
  }
  return out;
}

#define FASTCNN_INSTANTIATE(Pattern)                                               \
  template std::vector<Pattern> distinct<Pattern>(const Pattern*, size_t, size_t); \
  template std::vector<uint16_t> index_of<Pattern>(const Pattern*, size_t, const Pattern*, size_t);
FASTCNN_INSTANTIATE(uint8_t)
FASTCNN_INSTANTIATE(uint16_t)
FASTCNN_INSTANTIATE(uint32_t)
FASTCNN_INSTANTIATE(uint64_t)
#undef FASTCNN_INSTANTIATE

}  // namespace fastcnn::codec
