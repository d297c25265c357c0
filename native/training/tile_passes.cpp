#include "training/tile_passes.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/memory.h"
#include "kernels/fft/fft.h"
#include "kernels/winograd/winograd.h"

namespace fastcnn {
namespace {

constexpr ptrdiff_t kSkew = 16;                  // floats: keeps frequency strides off powers of two
constexpr size_t kChunkBytes = size_t{1} << 20;  // of M, about: half of an L2

const TileForm& form_of(Isa isa, const std::string& op, int size, const PassShape& s) {
  const TileForm* form = nullptr;
  if (op == "winograd") {
    const WinogradKernel* found = find_winograd(isa, size, s.kh, s.kw);
    if (found != nullptr) form = &found->form;
  } else if (op == "fft" && s.kh <= size && s.kw <= size) {
    form = find_fft(isa, size);
  }
  if (form == nullptr) {
    throw std::invalid_argument("no " + op + " form of size " + std::to_string(size) + " for kernels of " +
                                std::to_string(s.kh) + " x " + std::to_string(s.kw));
  }
  return *form;
}

int blocks_of(int channels, int lanes) { return (channels + lanes - 1) / lanes; }

size_t rounded_up(size_t floats) { return (floats + 15) / 16 * 16; }

// Equal shares of count items.
void share(int64_t count, int thread, int threads, int64_t& begin, int64_t& end) {
  begin = count * thread / threads, end = count * (thread + 1) / threads;
}

}  // namespace

TilePasses::TilePasses(Isa isa, const std::string& op, int size, const PassShape& shape, int threads)
    : s_(shape),
      form_(form_of(isa, op, size, shape)),
      kernels_(tile_kernels(isa)),
      relayout_(relayout_kernels(isa)),
      threads_(threads),
      lanes_(kernels_.lanes) {
  for (int extent :
       {s_.images, s_.groups, s_.channels, s_.filters, s_.height, s_.width, s_.out_height, s_.out_width, threads}) {
    if (extent < 1) throw std::invalid_argument("extents and threads must be at least 1");
  }
  c_blocks_ = blocks_of(s_.channels, lanes_);
  f_blocks_ = blocks_of(s_.filters, lanes_);
  m_y_ = form_.t_y - s_.kh + 1;
  m_x_ = form_.t_x - s_.kw + 1;
  tiles_y_ = (s_.out_height + m_y_ - 1) / m_y_;
  tiles_x_ = (s_.out_width + m_x_ - 1) / m_x_;
  const ptrdiff_t tile_group = static_cast<ptrdiff_t>(kernels_.tile) * lanes_;
  x_freq_ = groups() * c_blocks_ * tile_group + kSkew;
  g_freq_ = groups() * f_blocks_ * tile_group + kSkew;
  const size_t freqs = static_cast<size_t>(form_.freqs);
  x_group_ = freqs * static_cast<size_t>(x_freq_);
  g_group_ = freqs * static_cast<size_t>(g_freq_);
  filter_group_ = freqs * c_blocks_ * f_blocks_ * lanes_ * lanes_;
  const size_t m_group = freqs * sizeof(float) * static_cast<size_t>(tile_group) * kernels_.panel;
  chunk_ = static_cast<int>(std::clamp<size_t>(kChunkBytes / m_group, 1, groups()));
}

// Scratch of a thread: [work][planes of a panel, blocked][M] and, in the forward pass, X of an image.
size_t TilePasses::forward_own() const {
  const size_t planes = std::max(static_cast<size_t>(s_.height) * s_.width,
                                 static_cast<size_t>(kernels_.panel) * s_.out_height * s_.out_width);
  const size_t m = static_cast<size_t>(form_.freqs) * (chunk_ * kernels_.tile * kernels_.panel * lanes_ + kSkew);
  return rounded_up(form_.work + static_cast<size_t>(s_.kh) * s_.kw * lanes_) + planes * lanes_ + rounded_up(m) +
         rounded_up(x_group_);
}
size_t TilePasses::backward_own() const {
  const size_t planes =
      std::max(static_cast<size_t>(kernels_.panel) * s_.height * s_.width,
               std::max(static_cast<size_t>(s_.height) * s_.width, static_cast<size_t>(s_.out_height) * s_.out_width));
  const size_t m = static_cast<size_t>(form_.freqs) * (chunk_ * kernels_.tile * kernels_.panel * lanes_ + kSkew);
  return rounded_up(form_.work + static_cast<size_t>(s_.kh) * s_.kw * lanes_) + planes * lanes_ + rounded_up(m);
}
size_t TilePasses::backward_scratch(int images, bool kept_input, bool need_input, bool need_weight) const {
  const size_t count = static_cast<size_t>(need_weight ? std::min(images, s_.images) : threads_);
  size_t floats = threads_ * backward_own() + count * rounded_up(g_group_);
  if (need_input) floats += rounded_up(filter_group_);
  if (need_weight) floats += rounded_up(filter_group_) + (kept_input ? 0 : count * rounded_up(x_group_));
  return floats;
}

template <class Job>
void TilePasses::on_team(Job job) const {
  const auto team = ThreadPool::shared(threads_);
  team->run([](void* argument, int thread, int threads) { (*static_cast<Job*>(argument))(thread, threads); }, &job);
}

// [panel][frequency][C][panel width], every group after the other.
void TilePasses::filters(const float* w, float* u) const {
  const int V = lanes_, taps = s_.kh * s_.kw, panels = (f_blocks_ + kernels_.panel - 1) / kernels_.panel;
  const int rows = c_blocks_ * V;
  const size_t own_floats = rounded_up(form_.work + static_cast<size_t>(taps) * V);
  Buffer own(own_floats * static_cast<size_t>(threads_));
  on_team([&](int thread, int threads) {
    float* const work = own.data() + static_cast<size_t>(thread) * own_floats;
    int64_t begin, end;
    share(static_cast<int64_t>(s_.groups) * panels * rows, thread, threads, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int c = static_cast<int>(i % rows), panel = static_cast<int>(i / rows % panels);
      const int64_t g = i / rows / panels;
      const int block = panel * kernels_.panel, vectors = std::min(kernels_.panel, f_blocks_ - block);
      const size_t width = static_cast<size_t>(vectors) * V;
      float* const to =
          u + g * filter_group_ + static_cast<size_t>(form_.freqs) * block * V * rows + static_cast<size_t>(c) * width;
      for (int j = 0; j < vectors; ++j) {
        float* const beside = work + form_.work;
        for (int l = 0; l < V; ++l) {
          const int f = (block + j) * V + l;
          const bool real = c < s_.channels && f < s_.filters;
          const float* from = w + ((g * s_.filters + f) * s_.channels + c) * taps;
          for (int k = 0; k < taps; ++k) beside[k * V + l] = real ? from[k] : 0.0f;
        }
        form_.filter({beside, s_.kh, s_.kw, to + j * V, static_cast<ptrdiff_t>(rows * width), work});
      }
    }
  });
}

// The same of one group with channels and filters exchanged: [panel of channels][frequency][F][panel width].
void TilePasses::transpose(const float* u, float* to) const {
  const int V = lanes_, panel = kernels_.panel;
  const auto matrix = [&](auto* spectra, int block, int blocks, int rows, int64_t q) {
    const int width = std::min(panel, blocks - block / panel * panel) * V;
    return spectra + (static_cast<size_t>(form_.freqs) * (block / panel * panel) * V + q * width) * rows * V +
           block % panel * V;
  };
  on_team([&](int thread, int threads) {
    alignas(64) float square[16 * 16];
    int64_t begin, end;
    share(form_.freqs, thread, threads, begin, end);
    for (int64_t q = begin; q < end; ++q) {
      for (int fb = 0; fb < f_blocks_; ++fb) {
        const int from_width = std::min(panel, f_blocks_ - fb / panel * panel) * V;
        const float* const from = matrix(u, fb, f_blocks_, c_blocks_, q);
        for (int cb = 0; cb < c_blocks_; ++cb) {
          const int to_width = std::min(panel, c_blocks_ - cb / panel * panel) * V;
          float* const target = matrix(to, cb, c_blocks_, f_blocks_, q) + static_cast<ptrdiff_t>(fb) * V * to_width;
          relayout_.to_blocked(from + static_cast<ptrdiff_t>(cb) * V * from_width, from_width, V, V, square);
          for (int l = 0; l < V; ++l) std::memcpy(target + l * to_width, square + l * V, sizeof(float) * V);
        }
      }
    }
  });
}

// Spectra of one image and group: [frequency][group of tiles][channel block][tile][V].
void TilePasses::input_spectra(const float* planes, float* spectra, float* blocked, float* work) const {
  const int V = lanes_;
  const int64_t plane = static_cast<int64_t>(s_.height) * s_.width;
  for (int cb = 0; cb < c_blocks_; ++cb) {
    relayout_.to_blocked(planes + cb * V * plane, plane, std::min(V, s_.channels - cb * V), plane, blocked);
    for (int k = 0; k < tiles(); ++k) {
      const int iy = k / tiles_x_ * m_y_ - s_.top, ix = k % tiles_x_ * m_x_ - s_.left;
      TileInput t;
      t.in = blocked + (static_cast<ptrdiff_t>(iy) * s_.width + ix) * V;
      t.row = static_cast<ptrdiff_t>(s_.width) * V;
      t.pixel = V;
      t.y0 = std::max(0, -iy), t.y1 = std::min(form_.t_y, s_.height - iy);
      t.x0 = std::max(0, -ix), t.x1 = std::min(form_.t_x, s_.width - ix);
      t.out = spectra + ((static_cast<ptrdiff_t>(k / group()) * c_blocks_ + cb) * kernels_.tile + k % group()) * V;
      t.freq_stride = x_freq_;
      t.work = work;
      form_.input(t);
    }
  }
}

void TilePasses::gradient_spectra(const float* planes, float* spectra, float* blocked, float* work) const {
  const int V = lanes_;
  const int64_t plane = static_cast<int64_t>(s_.out_height) * s_.out_width;
  for (int fb = 0; fb < f_blocks_; ++fb) {
    relayout_.to_blocked(planes + fb * V * plane, plane, std::min(V, s_.filters - fb * V), plane, blocked);
    for (int k = 0; k < tiles(); ++k) {
      const int y = k / tiles_x_ * m_y_, x = k % tiles_x_ * m_x_;
      TileInput t;
      t.in = blocked + (static_cast<ptrdiff_t>(y) * s_.out_width + x) * V;
      t.row = static_cast<ptrdiff_t>(s_.out_width) * V;
      t.pixel = V;
      t.y1 = std::min(m_y_, s_.out_height - y);
      t.x1 = std::min(m_x_, s_.out_width - x);
      t.out = spectra + ((static_cast<ptrdiff_t>(k / group()) * f_blocks_ + fb) * kernels_.tile + k % group()) * V;
      t.freq_stride = g_freq_;
      t.work = work;
      form_.gradient(t);
    }
  }
}

// Groups of tiles first_group ... last_group times one panel, into M[frequency][tile][panel width].
void TilePasses::products(const float* v, int v_blocks, ptrdiff_t v_freq, const float* u, int vectors, float* m,
                          int first_group, int last_group) const {
  const ptrdiff_t m_freq = static_cast<ptrdiff_t>(chunk_) * kernels_.tile * kernels_.panel * lanes_ + kSkew;
  const ptrdiff_t matrix = static_cast<ptrdiff_t>(v_blocks) * lanes_ * vectors * lanes_;
  TileProduct p;
  p.group_stride = static_cast<ptrdiff_t>(v_blocks) * kernels_.tile * lanes_;
  p.group = group();
  p.tiles = std::min(tiles(), last_group * group()) - first_group * group();
  p.blocks = v_blocks;
  p.width = vectors;
  for (int q = 0; q < form_.freqs; ++q) {
    p.v = v + q * v_freq + first_group * p.group_stride;
    p.u = u + q * matrix;
    p.m = m + q * m_freq;
    if (q + 1 < form_.freqs) p.next = {p.u + matrix, matrix * ptrdiff_t{sizeof(float)}};
    kernels_.product(p);
  }
}

void TilePasses::forward(const float* x, const float* u, float* y, float* spectra, float* scratch) const {
  const int V = lanes_, panel = kernels_.panel;
  const int64_t in_plane = static_cast<int64_t>(s_.height) * s_.width;
  const int64_t out_plane = static_cast<int64_t>(s_.out_height) * s_.out_width;
  const ptrdiff_t m_freq = static_cast<ptrdiff_t>(chunk_) * kernels_.tile * panel * V + kSkew;
  const Activation none;
  on_team([&](int thread, int threads) {
    float* const work = scratch + static_cast<size_t>(thread) * forward_own();
    float* const blocked = work + rounded_up(form_.work + static_cast<size_t>(s_.kh) * s_.kw * V);
    float* const m = blocked + std::max(in_plane, panel * out_plane) * V;
    float* const own_spectra = m + rounded_up(static_cast<size_t>(form_.freqs) * static_cast<size_t>(m_freq));
    int64_t begin, end;
    share(static_cast<int64_t>(s_.images) * s_.groups, thread, threads, begin, end);
    for (int64_t i = begin; i < end; ++i) {  // image and group
      const int64_t g = i % s_.groups;
      float* const v = spectra != nullptr ? spectra + static_cast<size_t>(i) * x_group_ : own_spectra;
      input_spectra(x + i * s_.channels * in_plane, v, blocked, work);
      for (int b = 0; b < f_blocks_; b += panel) {
        const int vectors = std::min(panel, f_blocks_ - b);
        const float* matrices = u + g * filter_group_ + static_cast<size_t>(form_.freqs) * b * V * c_blocks_ * V;
        for (int first = 0; first < groups(); first += chunk_) {
          const int last = std::min(groups(), first + chunk_);
          products(v, c_blocks_, x_freq_, matrices, vectors, m, first, last);
          for (int k = first * group(); k < std::min(tiles(), last * group()); ++k) {
            const int oy = k / tiles_x_ * m_y_, ox = k % tiles_x_ * m_x_;
            for (int j = 0; j < vectors; ++j) {
              TileOutput o;
              o.in = m + (static_cast<ptrdiff_t>(k - first * group()) * vectors + j) * V;
              o.freq_stride = m_freq;
              o.work = work;
              o.out = blocked + (j * out_plane + static_cast<int64_t>(oy) * s_.out_width + ox) * V;
              o.row = static_cast<ptrdiff_t>(s_.out_width) * V;
              o.pixel = V;
              o.act = &none;
              o.rows = std::min(m_y_, s_.out_height - oy);
              o.cols = std::min(m_x_, s_.out_width - ox);
              form_.output(o);
            }
          }
        }
        for (int j = 0; j < vectors; ++j) {
          const int f = (b + j) * V;
          relayout_.to_planar(blocked + j * out_plane * V, out_plane, std::min(V, s_.filters - f),
                              y + (i * s_.filters + f) * out_plane, out_plane);
        }
      }
    }
  });
}

void TilePasses::backward(const float* dy, const float* x, const float* spectra, const float* u, float* dx, float* dw,
                          int at_once, float* scratch) const {
  const int V = lanes_, panel = kernels_.panel, taps = s_.kh * s_.kw;
  const int64_t in_plane = static_cast<int64_t>(s_.height) * s_.width;
  const int64_t out_plane = static_cast<int64_t>(s_.out_height) * s_.out_width;
  const int64_t weights = static_cast<int64_t>(s_.filters) * s_.channels * taps;
  const ptrdiff_t m_freq = static_cast<ptrdiff_t>(chunk_) * kernels_.tile * panel * V + kSkew;
  at_once = std::clamp(at_once, 1, s_.images);
  float* rest = scratch + static_cast<size_t>(threads_) * backward_own();
  const auto take = [&](size_t floats) {
    float* const part = rest;
    rest += rounded_up(floats);
    return part;
  };
  float* const exchanged = dx != nullptr ? take(filter_group_) : nullptr;
  float* const sums = dw != nullptr ? take(filter_group_) : nullptr;
  const size_t x_size = rounded_up(x_group_), g_size = rounded_up(g_group_);
  float* const made = dw != nullptr && spectra == nullptr ? take(at_once * x_size) : nullptr;
  float* const gradients = take((dw != nullptr ? at_once : threads_) * g_size);
  for (int64_t g = 0; g < s_.groups; ++g) {
    if (dx != nullptr) transpose(u + g * filter_group_, exchanged);
    for (int64_t first = 0; first < s_.images; first += at_once) {
      const int64_t count = std::min<int64_t>(at_once, s_.images - first);
      on_team([&](int thread, int threads) {
        float* const work = scratch + static_cast<size_t>(thread) * backward_own();
        float* const blocked = work + rounded_up(form_.work + static_cast<size_t>(taps) * V);
        float* const m = blocked + std::max(panel * in_plane, out_plane) * V;
        int64_t begin, end;
        share(count, thread, threads, begin, end);
        for (int64_t k = begin; k < end; ++k) {
          const int64_t i = (first + k) * s_.groups + g;  // image and group
          float* const d = gradients + static_cast<size_t>(dw != nullptr ? k : thread) * g_size;
          gradient_spectra(dy + i * s_.filters * out_plane, d, blocked, work);
          if (made != nullptr) input_spectra(x + i * s_.channels * in_plane, made + k * x_size, blocked, work);
          for (int b = 0; dx != nullptr && b < c_blocks_; b += panel) {
            const int vectors = std::min(panel, c_blocks_ - b);
            std::memset(blocked, 0, sizeof(float) * static_cast<size_t>(vectors * in_plane * V));
            const float* matrices = exchanged + static_cast<size_t>(form_.freqs) * b * V * f_blocks_ * V;
            for (int g0 = 0; g0 < groups(); g0 += chunk_) {
              const int g1 = std::min(groups(), g0 + chunk_);
              products(d, f_blocks_, g_freq_, matrices, vectors, m, g0, g1);
              for (int t = g0 * group(); t < std::min(tiles(), g1 * group()); ++t) {
                const int iy = t / tiles_x_ * m_y_ - s_.top, ix = t % tiles_x_ * m_x_ - s_.left;
                for (int j = 0; j < vectors; ++j) {
                  TileSpread o;
                  o.in = m + (static_cast<ptrdiff_t>(t - g0 * group()) * vectors + j) * V;
                  o.freq_stride = m_freq;
                  o.work = work;
                  o.out = blocked + (j * in_plane + static_cast<int64_t>(iy) * s_.width + ix) * V;
                  o.row = static_cast<ptrdiff_t>(s_.width) * V;
                  o.pixel = V;
                  o.y0 = std::max(0, -iy), o.y1 = std::min(form_.t_y, s_.height - iy);
                  o.x0 = std::max(0, -ix), o.x1 = std::min(form_.t_x, s_.width - ix);
                  form_.spread(o);
                }
              }
            }
            for (int j = 0; j < vectors; ++j) {
              const int c = (b + j) * V;
              relayout_.to_planar(blocked + j * in_plane * V, in_plane, std::min(V, s_.channels - c),
                                  dx + (i * s_.channels + c) * in_plane, in_plane);
            }
          }
        }
      });
      if (dw == nullptr) continue;
      on_team([&](int thread, int threads) {
        const size_t matrix = static_cast<size_t>(c_blocks_) * f_blocks_ * V * V;
        int64_t begin, end;
        share(form_.freqs, thread, threads, begin, end);
        for (int64_t q = begin; q < end; ++q) {
          TileOuter o;
          o.x_blocks = c_blocks_, o.g_blocks = f_blocks_;
          o.x_group = static_cast<ptrdiff_t>(c_blocks_) * kernels_.tile * V;
          o.g_group = static_cast<ptrdiff_t>(f_blocks_) * kernels_.tile * V;
          o.group = group(), o.tiles = tiles();
          o.out = sums + q * matrix;
          if (first == 0) std::memset(o.out, 0, sizeof(float) * matrix);
          for (int64_t k = 0; k < count; ++k) {
            const float* of_image =
                spectra != nullptr ? spectra + ((first + k) * s_.groups + g) * x_group_ : made + k * x_size;
            o.x = of_image + q * x_freq_;
            o.g = gradients + k * g_size + q * g_freq_;
            kernels_.outer(o);
          }
        }
      });
    }
    if (dw == nullptr) continue;
    on_team([&](int thread, int threads) {
      float* const work = scratch + static_cast<size_t>(thread) * backward_own();
      float* const beside = work + form_.work;
      int64_t begin, end;
      share(static_cast<int64_t>(s_.channels) * f_blocks_, thread, threads, begin, end);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i / f_blocks_, fb = i % f_blocks_;
        TileTaps t;
        t.in = sums + (c * f_blocks_ + fb) * V;
        t.freq_stride = static_cast<ptrdiff_t>(c_blocks_) * f_blocks_ * V * V;
        t.work = work;
        t.kh = s_.kh, t.kw = s_.kw;
        t.taps = beside;
        form_.taps(t);
        for (int l = 0; l < std::min<int64_t>(V, s_.filters - fb * V); ++l) {
          float* const to = dw + g * weights + ((fb * V + l) * s_.channels + c) * taps;
          for (int k = 0; k < taps; ++k) to[k] = beside[k * V + l];
        }
      }
    });
  }
}

}  // namespace fastcnn
