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
#else
    false;
#endif

template <int V>
constexpr size_t kPackedQuad = (kSumsFours<V> ? 4 : 8) * V;  // bytes

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
#if defined(__AVX2__)
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

// Levels 0 ... 255 of values: round(y * factor) + zero, clipped; NaN is 0.
template <int V>
[[gnu::always_inline]] inline IVec<V> levels(Vec<V> y, float factor, int zero) {
  const Vec<V> magic = splat<V>(12582912.0f);  // 1.5 * 2^23: the last bit of a sum with it counts ones
  Vec<V> at = more<V>(y * splat<V>(factor), splat<V>(static_cast<float>(-zero)));
  at = less<V>(at, splat<V>(static_cast<float>(255 - zero)));
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
        for (int t = 0; t < T; ++t) w[t] = Quad<V>::of(weights + t * vector);
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
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const Vec<V> scale = load<V>(a.to.scale + (v + t) * V), bias = load<V>(a.to.bias + (v + t) * V);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) finish<V>(a.to, acc[t][p], v + t, first + p, scale, bias);
  }
}

// P pixels at a time, what is left by halves.
template <int V, int T, int P>
[[gnu::noinline]] void conv_pixels(const Int8ConvShape& s, const Int8ConvArgs& a, int v, int first) {
  for (; first + P <= s.out_w; first += P) conv_tile<V, T, P>(s, a, v, first);
  if constexpr (P > 1) {
    if (first < s.out_w) conv_pixels<V, T, P / 2>(s, a, v, first);
  }
}

template <int V, int T, int P>
void conv_vectors(const Int8ConvShape& s, const Int8ConvArgs& a) {
  int v = 0;
  for (; v + T <= a.vectors; v += T) conv_pixels<V, T, P>(s, a, v, 0);
  for (; v < a.vectors; ++v) conv_pixels<V, 1, P>(s, a, v, 0);
}

template <int T, int P>
struct Int8TileOf {
  static constexpr int kVectors = T, kPixels = P;
};

template <int V, class... Tiles>
void conv_row(const Int8Tile& tile, const Int8ConvShape& s, const Int8ConvArgs& a) {
  static_cast<void>(((tile.vectors == Tiles::kVectors && tile.pixels == Tiles::kPixels &&
                      (conv_vectors<V, Tiles::kVectors, Tiles::kPixels>(s, a), true)) ||
                     ...));
}

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
  if constexpr (V == 8) return acc + (IVec<V>)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#endif
  return acc + x * w;
}

template <int V>
[[gnu::always_inline]] inline IVec<V> load_weights(const int8_t* p) {
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
  const int8_t* w = a.weights + v * V;
  for (int i = 0; i < s.rows; ++i) {
    for (int j = 0; j < s.columns; ++j, w += s.weights_tap) {
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

template <int V>
void depthwise_row(const Int8DepthwiseShape& s, const Int8DepthwiseArgs& a) {
  constexpr int kPixels = 4;
  for (int v = 0; v < a.vectors; ++v) {
    int first = 0;
    for (; first + kPixels <= s.out_w; first += kPixels) depthwise_tile<V, kPixels>(s, a, v, first);
    for (; first < s.out_w; ++first) depthwise_tile<V, 1>(s, a, v, first);
  }
}

template <int V>
void quantize_row(const float* in, ptrdiff_t plane, int pixels, int channels, float factor, int zero, uint8_t* out,
                  ptrdiff_t out_pixel) {
  const int padded = (channels + kInt8Group - 1) / kInt8Group * kInt8Group;
  IVec<V> lane;
  for (int l = 0; l < V; ++l) lane[l] = l;
  for (int c = 0; c < padded; c += V) {
    const IVec<V> nothing = zero - IVec<V>{};
    for (int p = 0; p < pixels; ++p) {
      IVec<V> q = nothing;
      if (c < channels) {
        q = levels<V>(load<V>(in + c / V * plane + p * V), factor, zero);
        if (c + V > channels) q = lane < channels - c ? q : nothing;
      }
      store_bytes<V>(out + p * out_pixel + c, q);
    }
  }
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

// The value may be another one from here on, for all the compiler knows.
template <int V>
[[gnu::always_inline]] inline void keep_open(IVec<V>& value) {
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
constexpr int kPeakChains = V == 16 ? 12 : 4;

template <int V>
int32_t int8_peak(int64_t iterations) {
  constexpr int kChains = kPeakChains<V>;
  IVec<V> acc[kChains] = {}, x = 0x01020304 - IVec<V>{};
  Quad<V> w;
  w.even = 0x01010101 - IVec<V>{};
  w.odd = w.even;
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = add_products<V>(acc[i], x, w);
    keep_open<V>(x);
  }
  IVec<V> sum = {};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum += acc[i];
  int32_t total = 0;
  for (int l = 0; l < V; ++l) total += sum[l];
  return total;
}

template <int V, class... Tiles>
Int8Kernels make_int8_of(Isa isa) {
  static constexpr Int8Tile tiles[] = {{Tiles::kVectors, Tiles::kPixels}...};
  return {isa,
          V,
          tiles,
          static_cast<int>(sizeof...(Tiles)),
          packed_bytes<V>,
          pack<V>,
          conv_row<V, Tiles...>,
          depthwise_row<V>,
          quantize_row<V>,
          floats_row<V>,
          int8_peak<V>,
          static_cast<int64_t>(kPeakChains<V>) * V * 4};
}

template <int V>
Int8Kernels make_int8(Isa isa) {
  if constexpr (kSumsFours<V>) {
    return make_int8_of<V, Int8TileOf<4, 7>, Int8TileOf<2, 14>, Int8TileOf<2, 8>, Int8TileOf<4, 6>, Int8TileOf<4, 5>,
                        Int8TileOf<4, 1>>(isa);
  } else if constexpr (V == 16) {
    return make_int8_of<V, Int8TileOf<2, 7>, Int8TileOf<2, 8>, Int8TileOf<4, 4>, Int8TileOf<4, 1>>(isa);
  } else {
    return make_int8_of<V, Int8TileOf<2, 4>, Int8TileOf<1, 7>, Int8TileOf<4, 1>>(isa);
  }
}

}  // namespace
}  // namespace fastcnn
