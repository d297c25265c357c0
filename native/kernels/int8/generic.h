// Included once per ISA. Without an instruction for sums of four products of bytes, bytes are widened to 16 bits, the
// even ones and the odd ones apart, and products summed by twos: nothing saturates.
#pragma once

#include "base/simd.h"
#include "kernels/int8/int8.h"

namespace fastcnn {
namespace {

template <int V>
constexpr bool kSumsFours =
#if defined(__AVX512VNNI__)
    V == 16;
#elif defined(__AVXVNNI__)
    V == 8;
#else
    false;
#endif

template <int V>
constexpr size_t kPackedQuad = (kSumsFours<V> ? 4 : 8) * V;  // bytes

constexpr ptrdiff_t kAhead = 2048;  // bytes of a stream of weights

template <int V>
struct ByteVec {
  typedef uint8_t type __attribute__((vector_size(V)));
  typedef uint8_t unaligned __attribute__((vector_size(V), aligned(1), may_alias));
};
template <int V>
struct WordVec {
  typedef int32_t unaligned __attribute__((vector_size(V * 4), aligned(1), may_alias));
};

template <int V>
[[gnu::always_inline]] inline IVec<V> load_bytes(const uint8_t* p) {
  // gcc makes an insertion for each byte of a convertvector.
#if defined(__AVX512F__)
  if constexpr (V == 16) return (IVec<V>)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) return (IVec<V>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
  return __builtin_convertvector(*reinterpret_cast<const typename ByteVec<V>::unaligned*>(p), IVec<V>);
}
template <int V>
[[gnu::always_inline]] inline void store_bytes(uint8_t* p, IVec<V> x) {
#if defined(__AVX512F__)
  if constexpr (V == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x));
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) {
    const __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
    return;
  }
#endif
  *reinterpret_cast<typename ByteVec<V>::unaligned*>(p) = __builtin_convertvector(x, typename ByteVec<V>::type);
}

template <int V>
[[gnu::always_inline]] inline IVec<V> load_ints(const int32_t* p) {
  return *reinterpret_cast<const typename WordVec<V>::unaligned*>(p);
}

// Weights of four channels for V outputs.
template <int V>
struct Quad {
  IVec<V> even, odd;  // or all four in `even`

  [[gnu::always_inline]] static Quad of(const char* p) {
    Quad q;
    q.even = *reinterpret_cast<const typename WordVec<V>::unaligned*>(p);
    if constexpr (!kSumsFours<V>) q.odd = *reinterpret_cast<const typename WordVec<V>::unaligned*>(p + 4 * V);
    return q;
  }
};

// acc + x0 * w0 + ... + x3 * w3, where every lane of x has the same four bytes.
template <int V>
[[gnu::always_inline]] inline IVec<V> add_products(IVec<V> acc, IVec<V> x, const Quad<V>& w) {
#if defined(__AVX512VNNI__)
  if constexpr (V == 16) return (IVec<V>)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)w.even);
#elif defined(__AVX512BW__)
  if constexpr (V == 16) {
    const __m512i even = _mm512_and_si512((__m512i)x, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16((__m512i)x, 8);
    return acc + (IVec<V>)_mm512_madd_epi16(even, (__m512i)w.even) + (IVec<V>)_mm512_madd_epi16(odd, (__m512i)w.odd);
  }
#endif
#if defined(__AVXVNNI__)
  if constexpr (V == 8) return (IVec<V>)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)x, (__m256i)w.even);
#elif defined(__AVX2__)
  if constexpr (V == 8) {
    const __m256i even = _mm256_and_si256((__m256i)x, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16((__m256i)x, 8);
    return acc + (IVec<V>)_mm256_madd_epi16(even, (__m256i)w.even) + (IVec<V>)_mm256_madd_epi16(odd, (__m256i)w.odd);
  }
#endif
  acc += (x & 255) * ((w.even << 16) >> 16) + ((x >> 16) & 255) * (w.even >> 16);
  return acc + ((x >> 8) & 255) * ((w.odd << 16) >> 16) + ((x >> 24) & 255) * (w.odd >> 16);
}

template <int V>
size_t packed_bytes(int64_t quads) {
  return static_cast<size_t>(quads) * kPackedQuad<V>;
}

template <int V>
void pack(const int8_t* weights, int64_t quads, void* out) {
  if constexpr (kSumsFours<V>) {
    std::memcpy(out, weights, packed_bytes<V>(quads));
    return;
  }
  int16_t* to = static_cast<int16_t*>(out);
  for (int64_t q = 0; q < quads; ++q, weights += 4 * V, to += 4 * V) {
    for (int lane = 0; lane < V; ++lane) {
      const int8_t* w = weights + 4 * lane;
      to[2 * lane] = w[0];
      to[2 * lane + 1] = w[2];
      to[2 * V + 2 * lane] = w[1];
      to[2 * V + 2 * lane + 1] = w[3];
    }
  }
}

// The first where it is more (less), else the second: NaN becomes the second.
template <int V>
[[gnu::always_inline]] inline Vec<V> more(Vec<V> x, Vec<V> y) {
  return max_nan<V>(x, y);  // of these arguments the second is the result where either is NaN
}
template <int V>
[[gnu::always_inline]] inline Vec<V> less(Vec<V> x, Vec<V> y) {
  return min_nan<V>(x, y);
}

// Levels 0 ... high of values: round(y * factor) + zero, clipped; NaN is 0.
template <int V>
[[gnu::always_inline]] inline IVec<V> levels(Vec<V> y, float factor, int zero, int high = 255) {
  const Vec<V> magic = splat<V>(12582912.0f);  // 1.5 * 2^23: the last bit of a sum with it counts ones
  Vec<V> at = more<V>(y * splat<V>(factor), splat<V>(static_cast<float>(-zero)));
  at = less<V>(at, splat<V>(static_cast<float>(high - zero)));
  const Vec<V> rounded = at + magic;
  return (IVec<V>)rounded - (IVec<V>)magic + zero;
}

// One vector of channels of one output.
template <int V>
[[gnu::always_inline]] inline void finish(const Int8Out& o, IVec<V> sums, int vector, int pixel, Vec<V> scale,
                                          Vec<V> bias) {
  const bool bytes = o.residual != nullptr, added = bytes || o.residual_floats != nullptr;
  Vec<V> other = {};
  if (bytes) {
    const IVec<V> q = load_bytes<V>(o.residual + pixel * o.res_pixel + vector * V);
    other = (__builtin_convertvector(q, Vec<V>) - splat<V>(o.residual_zero)) * splat<V>(o.residual_step);
  } else if (added) {
    other = load<V>(o.residual_floats + pixel * o.res_pixel + vector * o.res_vector);
  }
  Vec<V> y = __builtin_convertvector(sums, Vec<V>) * scale;
  y += bias;
  if (added && !o.act_before_residual) y += other;
  y = activate<V>(y, o.act, o.slope != nullptr ? o.slope + vector * V : nullptr);
  if (added && o.act_before_residual) y += other;
  if (o.out != nullptr) {
    store_bytes<V>(o.out + pixel * o.out_pixel + vector * V, levels<V>(y, o.factor, o.zero));
  } else {
    store<V>(o.out_floats + pixel * o.out_pixel + vector * o.out_vector, y);
  }
}

#if defined(__AVX512BW__)
// What is added to sums that go out directly.
enum class Added { kNothing, kBytes, kFloats };

// Levels of V sums with what is added to them, as 32-bit numbers that are not clipped yet, less the zero.
template <Added kAdded>
[[gnu::always_inline]] inline __m512i direct_levels(const Int8Out& o, IVec<16> sums, int vector, int pixel,
                                                    Vec<16> scale, Vec<16> bias) {
  Vec<16> y = __builtin_convertvector(sums, Vec<16>) * scale;
  y += bias;
  if constexpr (kAdded == Added::kBytes) {
    const IVec<16> q = load_bytes<16>(o.residual + pixel * o.res_pixel + vector * 16);
    y += (__builtin_convertvector(q, Vec<16>) - splat<16>(o.residual_zero)) * splat<16>(o.residual_step);
  } else if constexpr (kAdded == Added::kFloats) {
    y += load<16>(o.residual_floats + pixel * o.res_pixel + vector * o.res_vector);
  }
  return _mm512_cvtps_epi32((__m512)(y * splat<16>(o.factor)));
}

// What turns four vectors of 32-bit levels into 64 bytes, in the order of packing: lanes of 16 bytes, each with four of
// every vector.
struct Clip {
  __m512i zero, low, high;
  explicit Clip(const Int8Out& o)
      : zero(_mm512_set1_epi16(static_cast<short>(o.zero))),
        low(_mm512_set1_epi8(static_cast<char>(o.low))),
        high(_mm512_set1_epi8(static_cast<char>(o.high))) {}
  [[gnu::always_inline]] __m512i operator()(__m512i a, __m512i b, __m512i c, __m512i d) const {
    const __m512i first = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
    const __m512i second = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
    return _mm512_max_epu8(low, _mm512_min_epu8(high, _mm512_packus_epi16(first, second)));
  }
};

// T vectors of one pixel.
template <int T>
[[gnu::always_inline]] inline void finish_direct(const Int8Out& o, const __m512i (&q)[T], int vector, int pixel,
                                                 const Clip& clip) {
  const __m512i nothing = _mm512_setzero_si512();
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  uint8_t* out = o.out + pixel * o.out_pixel + vector * 16;
  if constexpr (T == 4) {
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, clip(q[0], q[1], q[2], q[3])));
  } else if constexpr (T == 2) {
    const __m512i all = _mm512_permutexvar_epi32(order, clip(q[0], q[1], nothing, nothing));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(all));
  } else {
    static_assert(T == 1);
    const __m512i all = _mm512_permutexvar_epi32(order, clip(q[0], nothing, nothing, nothing));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(all));
  }
}

template <Added kAdded, int T, int P>
[[gnu::always_inline]] inline void finish_tile(const Int8Out& o, const IVec<16> (&acc)[T][P], int v, int first) {
  const Clip clip(o);
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    __m512i q[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      q[t] = direct_levels<kAdded>(o, acc[t][p], v + t, first + p, load<16>(o.scale + (v + t) * 16),
                                   load<16>(o.bias + (v + t) * 16));
    }
    finish_direct<T>(o, q, v, first + p, clip);
  }
}
#endif

// Outputs first ... first + P - 1 of the row, channel vectors v ... v + T - 1.
template <int V, int T, int P>
[[gnu::always_inline]] inline void conv_tile(const Int8ConvShape& s, const Int8ConvArgs& a, int v, int first) {
  const ptrdiff_t vector =
      static_cast<ptrdiff_t>(s.runs) * s.run_taps * s.quads * static_cast<ptrdiff_t>(kPackedQuad<V>);
  const char* weights = static_cast<const char*>(a.weights) + v * vector;
  const uint8_t* in = a.in + first * s.in_pixel;
  IVec<V> acc[T][P];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const IVec<V> start = load_ints<V>(a.to.start + (v + t) * V);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) acc[t][p] = start;
  }
  for (int run = 0; run < s.runs; ++run) {
    for (int tap = 0; tap < s.run_taps; ++tap) {
      const uint8_t* x = in + run * s.in_run + tap * s.in_tap;
#pragma GCC unroll 2
      for (int k = 0; k < s.quads; ++k, weights += kPackedQuad<V>) {
        Quad<V> w[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          w[t] = Quad<V>::of(weights + t * vector);
          // Of a single pixel every weight is used once, and comes from memory if the layer is large.
          if constexpr (P == 1) __builtin_prefetch(weights + t * vector + kAhead);
        }
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          int32_t four;
          std::memcpy(&four, x + p * s.in_pixel + 4 * k, sizeof four);
          const IVec<V> bytes = four - IVec<V>{};
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) acc[t][p] = add_products<V>(acc[t][p], bytes, w[t]);
        }
      }
    }
  }
#if defined(__AVX512BW__)
  if constexpr (V == 16) {
    if (a.to.direct) {
      if (a.to.residual != nullptr) {
        finish_tile<Added::kBytes, T, P>(a.to, acc, v, first);
      } else if (a.to.residual_floats != nullptr) {
        finish_tile<Added::kFloats, T, P>(a.to, acc, v, first);
      } else {
        finish_tile<Added::kNothing, T, P>(a.to, acc, v, first);
      }
      return;
    }
  }
#endif
  // Not unrolled, so in memory: a copy, for the sums of the other path to stay in registers.
  IVec<V> kept[T][P];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) kept[t][p] = acc[t][p];
  }
  for (int t = 0; t < T; ++t) {
    const Vec<V> scale = load<V>(a.to.scale + (v + t) * V), bias = load<V>(a.to.bias + (v + t) * V);
    for (int p = 0; p < P; ++p) finish<V>(a.to, kept[t][p], v + t, first + p, scale, bias);
  }
}

struct Int8Row {
  using Shape = Int8ConvShape;
  using Args = Int8ConvArgs;
  template <int V, int T, int P>
  [[gnu::always_inline]] static void tile(const Shape& s, const Args& a, int v, int first) {
    conv_tile<V, T, P>(s, a, v, first);
  }
};

// acc + x * w in every lane, for bytes x and weights w that were widened.
template <int V>
[[gnu::always_inline]] inline IVec<V> add_each(IVec<V> acc, IVec<V> x, IVec<V> w) {
#if defined(__AVX512VNNI__)
  if constexpr (V == 16) return (IVec<V>)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)w);
#elif defined(__AVX512BW__)
  if constexpr (V == 16) return acc + (IVec<V>)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#endif
#if defined(__AVX2__)
  // A negative weight is the same in 16 bits and in 32; the upper half of x is 0.
#if defined(__AVXVNNI__)
  if constexpr (V == 8) return (IVec<V>)_mm256_dpwssd_avx_epi32((__m256i)acc, (__m256i)x, (__m256i)w);
#endif
  if constexpr (V == 8) return acc + (IVec<V>)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#endif
  return acc + x * w;
}

template <int V>
[[gnu::always_inline]] inline IVec<V> load_weights(const int8_t* p) {
#if defined(__AVX512F__)
  if constexpr (V == 16) return (IVec<V>)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX2__)
  if constexpr (V == 8) return (IVec<V>)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
  typedef int8_t Signed __attribute__((vector_size(V), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Signed*>(p), IVec<V>);
}

template <int V, int P>
[[gnu::always_inline]] inline void depthwise_tile(const Int8DepthwiseShape& s, const Int8DepthwiseArgs& a, int v,
                                                  int first) {
  IVec<V> acc[P];
  const IVec<V> start = load_ints<V>(a.to.start + v * V);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) acc[p] = start;
  const uint8_t* in = a.in + first * s.in_pixel + v * V;
  const int8_t* w = static_cast<const int8_t*>(a.weights) + v * V;
  for (int i = 0; i < s.rows; ++i) {
    for (int j = 0; j < s.columns; ++j, w += s.padded) {
      const IVec<V> weight = load_weights<V>(w);
      const uint8_t* x = in + i * s.in_row + j * s.in_column;
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) acc[p] = add_each<V>(acc[p], load_bytes<V>(x + p * s.in_pixel), weight);
    }
  }
  const Vec<V> scale = load<V>(a.to.scale + v * V), bias = load<V>(a.to.bias + v * V);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) finish<V>(a.to, acc[p], v, first + p, scale, bias);
}

#if defined(__AVX512VNNI__)
// 64 channels at a time: the bytes of up to four rows are brought together by channel, in the order of unpacking (lanes
// of 16 bytes; vector k has channels 4 k ... 4 k + 3 of each), and multiplied by fours. Packing puts the order right.
struct Fours {
  __m512i part[4];
};

// `rows` rows of one column from `in` on.
[[gnu::always_inline]] inline Fours fours_of(const uint8_t* in, ptrdiff_t row, int rows, __mmask64 there) {
  const __m512i nothing = _mm512_setzero_si512();
  const __m512i a = _mm512_maskz_loadu_epi8(there, in);
  const __m512i b = rows > 1 ? _mm512_maskz_loadu_epi8(there, in + row) : nothing;
  const __m512i c = rows > 2 ? _mm512_maskz_loadu_epi8(there, in + 2 * row) : nothing;
  const __m512i d = rows > 3 ? _mm512_maskz_loadu_epi8(there, in + 3 * row) : nothing;
  const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
  const __m512i ab2 = _mm512_unpackhi_epi8(a, b), cd2 = _mm512_unpackhi_epi8(c, d);
  return {{_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd), _mm512_unpacklo_epi16(ab2, cd2),
           _mm512_unpackhi_epi16(ab2, cd2)}};
}
[[gnu::always_inline]] inline void add_fours(__m512i (&acc)[4], const Fours& x, const char* w) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) acc[k] = _mm512_dpbusd_epi32(acc[k], x.part[k], _mm512_loadu_si512(w + 64 * k));
}

// Numbers of 64 channels in the order of unpacking; those past the last are not read.
struct Unpacked {
  alignas(64) float part[4][16];
  Unpacked(const float* p, int groups) {
    std::memset(part, 0, sizeof part);
    for (int lane = 0; lane < groups; ++lane) {
      for (int k = 0; k < 4; ++k) std::memcpy(&part[k][4 * lane], p + 16 * lane + 4 * k, 16);
    }
  }
};

// 64 channels from vector v on, which are to go out directly.
inline void depthwise_block(const Int8DepthwiseShape& s, const Int8DepthwiseArgs& a, int v) {
  const int groups = a.vectors - v < 4 ? a.vectors - v : 4, row_groups = (s.rows + 3) / 4;
  const __mmask64 there = groups == 4 ? ~__mmask64{0} : (__mmask64{1} << (16 * groups)) - 1;
  const char* weights =
      static_cast<const char*>(a.weights) + static_cast<ptrdiff_t>(v / 4) * row_groups * s.columns * 256;
  const Unpacked start(reinterpret_cast<const float*>(a.to.start) + v * 16, groups), scale(a.to.scale + v * 16, groups),
      bias(a.to.bias + v * 16, groups);
  const Clip clip(a.to);
  const auto begin = [&](__m512i(&acc)[4]) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) acc[k] = _mm512_load_si512(start.part[k]);
  };
  const auto end = [&](const __m512i(&acc)[4], int pixel) {
    __m512i q[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      Vec<16> y = __builtin_convertvector((IVec<16>)acc[k], Vec<16>) * load<16>(scale.part[k]);
      y += load<16>(bias.part[k]);
      q[k] = _mm512_cvtps_epi32((__m512)(y * splat<16>(a.to.factor)));
    }
    _mm512_mask_storeu_epi8(a.to.out + pixel * a.to.out_pixel + v * 16, there, clip(q[0], q[1], q[2], q[3]));
  };
  const uint8_t* in = a.in + v * 16;
  if (s.rows == 3 && s.columns == 3 && s.in_pixel == s.in_column) {
    // Every column serves three outputs.
    Fours x0 = fours_of(in, s.in_row, 3, there), x1 = fours_of(in + s.in_column, s.in_row, 3, there);
    for (int p = 0; p < s.out_w; ++p) {
      const Fours x2 = fours_of(in + (p + 2) * s.in_column, s.in_row, 3, there);
      __m512i acc[4];
      begin(acc);
      add_fours(acc, x0, weights);
      add_fours(acc, x1, weights + 256);
      add_fours(acc, x2, weights + 512);
      end(acc, p);
      x0 = x1;
      x1 = x2;
    }
    return;
  }
  for (int p = 0; p < s.out_w; ++p) {
    __m512i acc[4];
    begin(acc);
    const char* w = weights;
    for (int g = 0; g < row_groups; ++g) {
      const int rows = s.rows - 4 * g < 4 ? s.rows - 4 * g : 4;
      const uint8_t* x = in + p * s.in_pixel + 4 * g * s.in_row;
      for (int j = 0; j < s.columns; ++j, w += 256)
        add_fours(acc, fours_of(x + j * s.in_column, s.in_row, rows, there), w);
    }
    end(acc, p);
  }
}
#endif

// Weights of the blocks of 64 channels follow those of single vectors, where there are such kernels.
template <int V>
constexpr bool kBlocks = kSumsFours<V> && V == 16;

template <int V>
size_t depthwise_bytes(int rows, int columns, int padded) {
  const size_t plain = static_cast<size_t>(rows) * columns * padded;
  if constexpr (!kBlocks<V>) return plain;
  return (plain + 63) / 64 * 64 + static_cast<size_t>((padded + 63) / 64) * ((rows + 3) / 4) * columns * 256;
}

template <int V>
void depthwise_pack(const int8_t* weights, int rows, int columns, int padded, void* out) {
  const size_t plain = static_cast<size_t>(rows) * columns * padded;
  std::memcpy(out, weights, plain);
  if constexpr (!kBlocks<V>) return;
  int8_t* to = static_cast<int8_t*>(out) + (plain + 63) / 64 * 64;
  for (int block = 0; block < padded; block += 64) {
    for (int g = 0; g < rows; g += 4) {
      for (int j = 0; j < columns; ++j, to += 256) {
        std::memset(to, 0, 256);
        for (int c = 0; c < 64 && block + c < padded; ++c) {
          int8_t* four = to + c % 16 / 4 * 64 + c / 16 * 16 + c % 4 * 4;
          for (int i = 0; i < 4 && g + i < rows; ++i) four[i] = weights[((g + i) * columns + j) * padded + block + c];
        }
      }
    }
  }
}

template <int V>
void depthwise_row(const Int8DepthwiseShape& s, const Int8DepthwiseArgs& a) {
#if defined(__AVX512VNNI__)
  if constexpr (V == 16) {
    if (a.to.direct && a.to.residual == nullptr && a.to.residual_floats == nullptr) {
      Int8DepthwiseArgs blocks = a;
      const size_t plain = static_cast<size_t>(s.rows) * s.columns * s.padded;
      blocks.weights = static_cast<const char*>(a.weights) + (plain + 63) / 64 * 64;
      for (int v = 0; v < a.vectors; v += 4) depthwise_block(s, blocks, v);
      return;
    }
  }
#endif
  constexpr int kPixels = 4;
  for (int v = 0; v < a.vectors; ++v) {
    int first = 0;
    for (; first + kPixels <= s.out_w; first += kPixels) depthwise_tile<V, kPixels>(s, a, v, first);
    for (; first < s.out_w; ++first) depthwise_tile<V, 1>(s, a, v, first);
  }
}

template <int V>
void quantize_row(const float* in, ptrdiff_t plane, int pixels, int channels, float factor, int zero, int high,
                  uint8_t* out, ptrdiff_t out_pixel) {
  const int padded = (channels + kInt8Group - 1) / kInt8Group * kInt8Group;
  IVec<V> lane;
  for (int l = 0; l < V; ++l) lane[l] = l;
  for (int c = 0; c < padded; c += V) {
    const IVec<V> nothing = zero - IVec<V>{};
    for (int p = 0; p < pixels; ++p) {
      IVec<V> q = nothing;
      if (c < channels) {
        q = levels<V>(load<V>(in + c / V * plane + p * V), factor, zero, high);
        if (c + V > channels) q = lane < channels - c ? q : nothing;
      }
      store_bytes<V>(out + p * out_pixel + c, q);
    }
  }
}

template <int V>
void quantize_planes(const float* in, ptrdiff_t plane, int pixels, int channels, float factor, int zero, int high,
                     uint8_t* out) {
  const auto quantize = [&](const float* x) {
    IVec<V> pixel = {};
    for (int c = 0; c < kInt8Narrow; ++c) {
      pixel |= (c < channels ? levels<V>(load<V>(x + c * plane), factor, zero, high) : zero - IVec<V>{}) << (8 * c);
    }
    return pixel;
  };
  int p = 0;
  for (; p + V <= pixels; p += V) {
    *reinterpret_cast<typename WordVec<V>::unaligned*>(out + p * kInt8Narrow) = quantize(in + p);
  }
  if (p == pixels) return;
  float rest[kInt8Narrow * V] = {};
  for (int c = 0; c < channels; ++c) {
    std::memcpy(rest + c * V, in + c * plane + p, static_cast<size_t>(pixels - p) * sizeof(float));
  }
  plane = V;
  const IVec<V> last = quantize(rest);
  std::memcpy(out + p * kInt8Narrow, &last, static_cast<size_t>(pixels - p) * kInt8Narrow);
}

template <int V>
void floats_row(const uint8_t* in, ptrdiff_t in_pixel, int pixels, int channels, float step, int zero, float* out,
                ptrdiff_t plane) {
  const Vec<V> middle = splat<V>(static_cast<float>(zero)), wide = splat<V>(step);
  for (int c = 0; c < channels; c += V) {
    for (int p = 0; p < pixels; ++p) {
      const Vec<V> q = __builtin_convertvector(load_bytes<V>(in + p * in_pixel + c), Vec<V>);
      store<V>(out + c / V * plane + p * V, (q - middle) * wide);
    }
  }
}

template <int B>
[[gnu::always_inline]] inline void largest_of(const uint8_t* in, ptrdiff_t row, ptrdiff_t column, int rows, int columns,
                                              uint8_t* out) {
  typedef uint8_t Bytes __attribute__((vector_size(B)));
  typedef uint8_t Unaligned __attribute__((vector_size(B), aligned(1), may_alias));
  Bytes most = {};
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      const Bytes x = *reinterpret_cast<const Unaligned*>(in + i * row + j * column);
      most = x > most ? x : most;
    }
  }
  *reinterpret_cast<Unaligned*>(out) = most;
}

template <int V>
void largest(const uint8_t* in, ptrdiff_t row, ptrdiff_t column, int rows, int columns, int channels, uint8_t* out) {
  int c = 0;
  for (; c + 4 * V <= channels; c += 4 * V) largest_of<4 * V>(in + c, row, column, rows, columns, out + c);
  for (; c < channels; c += kInt8Group) largest_of<kInt8Group>(in + c, row, column, rows, columns, out + c);
}

template <int V, class... Tiles>
Int8Kernels make_int8_of(Isa isa) {
  static constexpr RowTile tiles[] = {{Tiles::kVectors, Tiles::kPixels}...};
  return {isa,
          V,
          tiles,
          static_cast<int>(sizeof...(Tiles)),
          packed_bytes<V>,
          pack<V>,
          tile_row<Int8Row, V, Tiles...>,
          depthwise_bytes<V>,
          depthwise_pack<V>,
          depthwise_row<V>,
          quantize_row<V>,
          quantize_planes<V>,
          floats_row<V>,
          largest<V>};
}

// An instruction set has the same tiles with and without sums of fours, which are not part of its name: what is planned
// on one machine runs on another.
template <int V>
Int8Kernels make_int8(Isa isa) {
  if constexpr (V == 16 && kSumsFours<V>) {
    return make_int8_of<V, RowTileOf<4, 7>, RowTileOf<2, 14>, RowTileOf<2, 8>, RowTileOf<4, 6>, RowTileOf<4, 5>,
                        RowTileOf<2, 7>, RowTileOf<4, 4>, RowTileOf<4, 1>>(isa);
  } else if constexpr (V == 16) {
    return make_int8_of<V, RowTileOf<2, 7>, RowTileOf<2, 8>, RowTileOf<4, 4>, RowTileOf<4, 7>, RowTileOf<2, 14>,
                        RowTileOf<4, 6>, RowTileOf<4, 5>, RowTileOf<4, 1>>(isa);
  } else if constexpr (kSumsFours<V>) {
    return make_int8_of<V, RowTileOf<2, 6>, RowTileOf<2, 4>, RowTileOf<1, 7>, RowTileOf<4, 1>>(isa);
  } else {
    return make_int8_of<V, RowTileOf<2, 4>, RowTileOf<1, 7>, RowTileOf<2, 6>, RowTileOf<4, 1>>(isa);
  }
}

}  // namespace
}  // namespace fastcnn
