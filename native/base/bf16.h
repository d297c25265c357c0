// bf16: the upper half of a float, with 8 significant bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastcnn {

struct Bf16 {
  uint16_t bits;
};

namespace {

// Nearest, ties to even; a NaN stays one.
inline Bf16 round_bf16(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  if (x != x) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

inline float widen_bf16(Bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float wide;
  std::memcpy(&wide, &u, sizeof wide);
  return wide;
}

}  // namespace
}  // namespace fastcnn
