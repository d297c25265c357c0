// Included once per ISA. Differences are counted in the 32-bit lanes at once where there is an instruction for it, else
// in their bytes, which are added up before they can overflow.
#pragma once

#include <type_traits>

#include "base/simd.h"
#include "kernels/bits/bits.h"

namespace fastcnn {
namespace {

template <int V>
struct UVecType {
  typedef uint32_t type __attribute__((vector_size(V * 4)));
  typedef uint32_t unaligned __attribute__((vector_size(V * 4), aligned(4), may_alias));
};
template <int V>
using UVec = typename UVecType<V>::type;

template <int V>
[[gnu::always_inline]] inline UVec<V> load_words(const uint32_t* p) {
  return *reinterpret_cast<const typename UVecType<V>::unaligned*>(p);
}
template <int V>
[[gnu::always_inline]] inline IVec<V> load_ints(const int32_t* p) {
  return (IVec<V>)load_words<V>(reinterpret_cast<const uint32_t*>(p));
}

template <int V>
constexpr bool kCountsLanes =
#if defined(__AVX512VPOPCNTDQ__)
    V == 16;
#else
    false;
#endif

constexpr int kBytesHold = 31;  // counts of 8 in a byte

// Set bits of every lane, or of every byte.
template <int V>
[[gnu::always_inline]] inline UVec<V> count_bits(UVec<V> x) {
#if defined(__AVX512VPOPCNTDQ__)
  if constexpr (V == 16) return (UVec<V>)_mm512_popcnt_epi32((__m512i)x);
#elif defined(__AVX512BW__)
  if constexpr (V == 16) {
    const __m512i low = _mm512_set1_epi8(15), v = (__m512i)x;
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    return (UVec<V>)_mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(v, low)),
                                    _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), low)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) {
    const __m256i low = _mm256_set1_epi8(15), v = (__m256i)x;
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    return (UVec<V>)_mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)),
                                    _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
  }
#endif
  x = x - ((x >> 1) & 0x55555555u);
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  return (x + (x >> 4)) & 0x0f0f0f0fu;
}

// Sum of the four bytes of every lane.
template <int V>
[[gnu::always_inline]] inline UVec<V> add_bytes(UVec<V> x) {
#if defined(__AVX512BW__)
  if constexpr (V == 16) {
    const __m512i pairs = _mm512_maddubs_epi16((__m512i)x, _mm512_set1_epi8(1));
    return (UVec<V>)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  }
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) {
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)x, _mm256_set1_epi8(1));
    return (UVec<V>)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
#endif
  x = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
  return (x & 0xffffu) + (x >> 16);
}

// Bytes of one vector: unlike UVec's, additions of neighbours do not carry into each other.
template <int V>
[[gnu::always_inline]] inline UVec<V> add_counts(UVec<V> a, UVec<V> b) {
  if constexpr (kCountsLanes<V>) return a + b;
  typedef uint8_t Bytes __attribute__((vector_size(V * 4)));
  return (UVec<V>)((Bytes)a + (Bytes)b);
}

// A bit for every lane of a > b.
template <int V>
[[gnu::always_inline]] inline uint32_t greater(IVec<V> a, IVec<V> b) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return _mm512_cmpgt_epi32_mask((__m512i)a, (__m512i)b);
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32((__m256i)a, (__m256i)b))));
  }
#endif
  const IVec<V> above = a > b;
  uint32_t mask = 0;
  for (int l = 0; l < V; ++l) mask |= static_cast<uint32_t>(above[l] & 1) << l;
  return mask;
}

// A bit for every lane that is not >= 0; NaN is not.
template <int V>
[[gnu::always_inline]] inline uint32_t negative(Vec<V> x) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NGE_UQ);
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_NGE_UQ)));
  }
#endif
  uint32_t mask = 0;
  for (int l = 0; l < V; ++l) mask |= static_cast<uint32_t>(!(x[l] >= 0.0f)) << l;
  return mask;
}

// Differing bits of T channel vectors and P outputs. One plane is a case of its own: the loop over planes would cost
// layers of few products some percent.
template <int V, int T, int P, bool kPlanes>
[[gnu::always_inline]] inline void differences(const BitsConvShape& s, const uint32_t* in, const uint32_t* weights,
                                               ptrdiff_t vector, IVec<V> (&total)[T][P]) {
  UVec<V> acc[T][P] = {};
  [[maybe_unused]] UVec<V> wide[T][P] = {};
  [[maybe_unused]] int left = kBytesHold;
  const int planes = kPlanes ? s.in_planes * s.weight_planes : 1;
  const ptrdiff_t weight_plane = kPlanes && s.weight_planes > 1 ? vector / s.weight_planes : 0;
  for (int plane = 0; plane < planes; ++plane) {
    if (plane > 0) {
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          if constexpr (kCountsLanes<V>) {
            acc[t][p] += acc[t][p];
          } else {
            wide[t][p] += add_bytes<V>(acc[t][p]);
            wide[t][p] += wide[t][p];
            acc[t][p] = UVec<V>{};
          }
        }
      }
      left = kBytesHold;
    }
    const uint32_t* w0 = weights + plane * weight_plane;
    for (int run = 0; run < s.runs; ++run) {
      for (int tap = 0; tap < s.run_taps; ++tap) {
        const uint32_t* x = in + plane * s.in_plane + run * s.in_run + tap * s.in_tap;
#pragma GCC unroll 2
        for (int k = 0; k < s.words; ++k, w0 += V) {
          UVec<V> w[T];
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) w[t] = load_words<V>(w0 + t * vector);
#pragma GCC unroll 16
          for (int p = 0; p < P; ++p) {
            const UVec<V> word = x[p * s.in_pixel + k] - UVec<V>{};
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) acc[t][p] = add_counts<V>(acc[t][p], count_bits<V>(word ^ w[t]));
          }
          if constexpr (!kCountsLanes<V>) {
            if (--left == 0) {
              left = kBytesHold;
              for (int t = 0; t < T; ++t) {
                for (int p = 0; p < P; ++p) {
                  wide[t][p] += add_bytes<V>(acc[t][p]);
                  acc[t][p] = UVec<V>{};
                }
              }
            }
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      if constexpr (kCountsLanes<V>) {
        total[t][p] = (IVec<V>)acc[t][p];
      } else {
        total[t][p] = (IVec<V>)(wide[t][p] + add_bytes<V>(acc[t][p]));
      }
    }
  }
}

// Floats of one vector of an output, of twice the differing bits with what is to be corrected.
template <int V>
[[gnu::always_inline]] inline void finish_floats(const BitsConvShape& s, const BitsConvArgs& a, IVec<V> twice,
                                                 int vector, int pixel) {
  const Vec<V> scale = a.scale != nullptr ? load<V>(a.scale + vector * V) : splat<V>(1.0f);
  const Vec<V> bias = a.bias != nullptr ? load<V>(a.bias + vector * V) : Vec<V>{};
  const Vec<V> sum = __builtin_convertvector(s.length - twice, Vec<V>);
  Vec<V> y = scale * sum + bias;
  const Vec<V> other =
      a.residual != nullptr ? load<V>(a.residual + vector * s.res_vector + pixel * s.out_pixel) : Vec<V>{};
  if (a.residual != nullptr && !s.act_before_residual) y += other;
  y = activate<V>(y, s.act, a.slope != nullptr ? a.slope + vector * V : nullptr);
  if (a.residual != nullptr && s.act_before_residual) y += other;
  store<V>(a.out + vector * s.out_vector + pixel * s.out_pixel, y);
}

// Outputs first ... first + P - 1 of the row, channel vectors v ... v + T - 1.
template <int V, int T, int P, bool kPlanes>
[[gnu::always_inline]] inline void conv_tile(const BitsConvShape& s, const BitsConvArgs& a, int v, int first) {
  const ptrdiff_t vector = static_cast<ptrdiff_t>(s.weight_planes) * s.runs * s.run_taps * s.words * V;
  IVec<V> q[T][P];
  differences<V, T, P, kPlanes>(s, a.in + first * s.in_pixel, a.weights + v * vector, vector, q);
  const bool corrected = a.corrections != nullptr;
  if (corrected || a.out_bits == nullptr) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        q[t][p] += q[t][p];
        if (corrected) q[t][p] += load_ints<V>(a.corrections + a.cases[first + p] * a.corrections_case + (v + t) * V);
      }
    }
  }
  if (a.out_bits != nullptr) {
    static_assert(T * V <= 64, "a tile's bits of one output are one number");
    IVec<V> limits[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      // Twice a number is above a limit where the number is above its half, rounded down.
      const IVec<V> whole = load_ints<V>(a.limits + (v + t) * V);
      limits[t] = corrected ? whole : whole >> 1;
    }
    char* out = static_cast<char*>(a.out_bits) + v * (V / 8) + first * s.out_pixel * 4;
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      uint64_t bits = 0;
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) bits |= static_cast<uint64_t>(greater<V>(q[t][p], limits[t])) << (t * V);
      std::memcpy(out + p * s.out_pixel * 4, &bits, T * V / 8);  // little-endian, as words are
    }
    return;
  }
  // Not unrolled, so in memory: a copy, for the sums of the other path to stay in registers.
  IVec<V> kept[T][P];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) kept[t][p] = q[t][p];
  }
  for (int t = 0; t < T; ++t) {
    for (int p = 0; p < P; ++p) finish_floats<V>(s, a, kept[t][p], v + t, first + p);
  }
}

template <bool kPlanes>
struct BitsRow {
  using Shape = BitsConvShape;
  using Args = BitsConvArgs;
  template <int V, int T, int P>
  [[gnu::always_inline]] static void tile(const Shape& s, const Args& a, int v, int first) {
    conv_tile<V, T, P, kPlanes>(s, a, v, first);
  }
};

// Channels 32 word ... of a row, `parts` vectors of them.
template <int V, bool kScaled>
[[gnu::always_inline]] inline void pack_word(const float* in, ptrdiff_t plane, int pixels, int parts, uint32_t valid,
                                             const float* scale, const float* shift, uint32_t* out,
                                             ptrdiff_t out_pixel) {
  constexpr int kParts = 32 / V;
  Vec<V> a[kParts], b[kParts];
  if constexpr (kScaled) {
    for (int i = 0; i < parts; ++i) {
      a[i] = load<V>(scale + i * V);
      b[i] = load<V>(shift + i * V);
    }
  }
  const auto pixel = [&](int p, int count) {
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      Vec<V> x = load<V>(in + i * plane + p * V);
      if constexpr (kScaled) x = a[i] * x + b[i];
      bits |= negative<V>(x) << (i * V);
    }
    return bits;
  };
  if (parts == kParts) {
    for (int p = 0; p < pixels; ++p) out[p * out_pixel] = pixel(p, kParts) & valid;
  } else {
    for (int p = 0; p < pixels; ++p) out[p * out_pixel] = pixel(p, parts) & valid;
  }
}

template <int V>
void pack_row(const float* in, ptrdiff_t plane, int pixels, int channels, const float* scale, const float* shift,
              uint32_t* out, ptrdiff_t out_pixel) {
  constexpr int kParts = 32 / V;
  for (int word = 0; word * 32 < channels; ++word) {
    const int there = channels - word * 32;
    const uint32_t valid = there >= 32 ? ~0u : (1u << there) - 1u;
    const int parts = there >= 32 ? kParts : (there + V - 1) / V;
    const float* x = in + word * kParts * plane;
    if (scale != nullptr) {
      pack_word<V, true>(x, plane, pixels, parts, valid, scale + word * 32, shift + word * 32, out + word, out_pixel);
    } else {
      pack_word<V, false>(x, plane, pixels, parts, valid, nullptr, nullptr, out + word, out_pixel);
    }
  }
}

// Bits of V values that are below a limit, or NaN.
template <int V>
[[gnu::always_inline]] inline uint32_t below(Vec<V> x, float limit) {
  return negative<V>(x - splat<V>(limit));
}

template <int V>
void pack_levels(const float* in, ptrdiff_t plane, int pixels, int channels, const float* limits, int count,
                 uint32_t* out, ptrdiff_t out_pixel, ptrdiff_t words) {
  constexpr int kParts = 32 / V;
  for (int word = 0; word * 32 < channels; ++word) {
    const int there = channels - word * 32;
    const uint32_t valid = there >= 32 ? ~0u : (1u << there) - 1u;
    const int parts = there >= 32 ? kParts : (there + V - 1) / V;
    const float* from = in + word * kParts * plane;
    for (int p = 0; p < pixels; ++p) {
      uint32_t first = 0, second = 0;
      for (int i = 0; i < parts; ++i) {
        const Vec<V> x = load<V>(from + i * plane + p * V);
        if (count == 1) {
          first |= below<V>(x, limits[0]) << (i * V);
          continue;
        }
        const uint32_t one = below<V>(x, limits[0]), two = below<V>(x, limits[1]), three = below<V>(x, limits[2]);
        // 1 is below the second limit and not below the first, 3 below none: other numbers are even.
        first |= two << (i * V);
        second |= (one | (three & ~two)) << (i * V);
      }
      uint32_t* to = out + p * out_pixel + word;
      to[0] = first & valid;
      if (count > 1) to[words] = second & valid;
    }
  }
}

template <int V>
constexpr int kPeakChains = kCountsLanes<V> ? 12 : 4;  // in registers, with as many factors

// The value may be another one from here on, for all the compiler knows.
template <int V>
[[gnu::always_inline]] inline void keep_open(UVec<V>& value) {
#if defined(__AVX512F__)
  __asm__ volatile("" : "+v"(value));
#elif defined(__AVX2__)
  if constexpr (V == 8) {
    __asm__ volatile("" : "+x"(value));
  } else {
    __asm__ volatile("" : "+m"(value));
  }
#else
  __asm__ volatile("" : "+m"(value));
#endif
}

template <int V>
uint32_t bits_peak(int64_t iterations) {
  constexpr int kChains = kPeakChains<V>;
  UVec<V> acc[kChains] = {}, w[kChains], x = 0x9e3779b9u - UVec<V>{};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) w[i] = static_cast<uint32_t>(i) * 2654435761u - UVec<V>{};
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      acc[i] = add_counts<V>(acc[i], count_bits<V>(x ^ w[i]));
      keep_open<V>(w[i]);
    }
  }
  UVec<V> sum = {};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum += acc[i];
  uint32_t total = 0;
  for (int l = 0; l < V; ++l) total += sum[l];
  return total;
}

// Apart from each other, as the registers of one would be short of those that the other takes.
template <int V, class... Tiles>
void conv_row(const RowTile& tile, const BitsConvShape& s, const BitsConvArgs& a) {
  if (s.in_planes * s.weight_planes == 1) {
    tile_row<BitsRow<false>, V, Tiles...>(tile, s, a);
  } else {
    tile_row<BitsRow<true>, V, Tiles...>(tile, s, a);
  }
}

template <int V, class... Tiles>
BitsKernels make_bits_of(Isa isa) {
  static constexpr RowTile tiles[] = {{Tiles::kVectors, Tiles::kPixels}...};
  return {isa,
          V,
          tiles,
          static_cast<int>(sizeof...(Tiles)),
          conv_row<V, Tiles...>,
          pack_row<V>,
          pack_levels<V>,
          bits_peak<V>,
          kPeakChains<V>};
}

template <int V>
BitsKernels make_bits(Isa isa) {
  if constexpr (kCountsLanes<V>) {
    return make_bits_of<V, RowTileOf<2, 7>, RowTileOf<2, 14>, RowTileOf<2, 8>, RowTileOf<4, 4>, RowTileOf<4, 6>,
                        RowTileOf<4, 5>, RowTileOf<4, 7>, RowTileOf<4, 1>>(isa);
  } else {
    return make_bits_of<V, RowTileOf<2, 4>, RowTileOf<1, 7>, RowTileOf<4, 2>, RowTileOf<4, 1>>(isa);
  }
}

}  // namespace
}  // namespace fastcnn
