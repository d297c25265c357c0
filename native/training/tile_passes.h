// The three passes of a convolution in training, by transformed tiles: y, and the gradients of x and of the weight.
//
// With X = B x, U = G w and D = A^T dy, the spectra of tiles, filters and gradient tiles (kernels/tiles):
//
//   y = A (sum over c of U X)    dx = B^T (sum over f of U D)    dw = G^T (sum over images and tiles of X D)
//
// X and D serve two of them, sums come before one inverse per result. Maps are planes in memory, as torch has them: a
// thread takes whole images, turns a block of channels at a time into channel-blocked rows, and keeps all else to
// itself; for the gradient of the weight threads share out frequencies, then filters.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/isa.h"
#include "base/threads.h"
#include "kernels/relayout/relayout.h"
#include "kernels/tiles/tiles.h"

namespace fastcnn {

// A stride-1 correlation: out = size + padding before and behind - kernel + 1 along each axis.
struct PassShape {
  int images = 1, groups = 1;
  int channels = 1, filters = 1;  // of a group
  int height = 1, width = 1, out_height = 1, out_width = 1;
  int kh = 1, kw = 1, top = 0, left = 0;
};

class TilePasses {
 public:
  // op "fft" with tiles of `size` points, or "winograd" with F(size, k). std::invalid_argument if there is no such form
  // or an extent is below 1.
  TilePasses(Isa isa, const std::string& op, int size, const PassShape& shape, int threads);

  const PassShape& shape() const { return s_; }
  // Floats of the spectra of one image's input or gradient, and of the filters; all groups.
  size_t input_floats() const { return s_.groups * x_group_; }
  size_t gradient_floats() const { return s_.groups * g_group_; }
  size_t filter_floats() const { return s_.groups * filter_group_; }
  // Floats of scratch that a pass takes besides, for so many images at a time.
  size_t forward_scratch() const { return static_cast<size_t>(threads_) * forward_own(); }
  size_t backward_scratch(int images, bool kept_input, bool need_input, bool need_weight) const;

  // Spectra of the filters [F][C][kh][kw], as forward() takes them.
  void filters(const float* w, float* u) const;
  // y [N][F][Ho][Wo] from x [N][C][H][W]; `spectra`: keeps input_floats() for every image there, or null.
  void forward(const float* x, const float* u, float* y, float* spectra, float* scratch) const;
  // Gradients of x and w, either may be null. `spectra`: what forward() kept, or null: they are made anew from x. `u`:
  // filters(), null without dx. `at_once` images at a time.
  void backward(const float* dy, const float* x, const float* spectra, const float* u, float* dx, float* dw,
                int at_once, float* scratch) const;

 private:
  size_t forward_own() const;
  size_t backward_own() const;
  // Tiles of one image, in groups of equal size.
  int tiles() const { return tiles_y_ * tiles_x_; }
  int groups() const { return (tiles() + kernels_.tile - 1) / kernels_.tile; }
  int group() const { return (tiles() + groups() - 1) / groups(); }

  template <class Job>
  void on_team(Job job) const;

  void input_spectra(const float* planes, float* spectra, float* blocked, float* work) const;
  void gradient_spectra(const float* planes, float* spectra, float* blocked, float* work) const;
  void products(const float* v, int v_blocks, ptrdiff_t v_freq, const float* u, int vectors, float* m, int first_group,
                int last_group) const;
  void transpose(const float* u, float* to) const;

  PassShape s_;
  const TileForm& form_;
  const TileKernels& kernels_;
  const RelayoutKernels& relayout_;
  int threads_, lanes_, c_blocks_, f_blocks_, m_y_, m_x_, tiles_y_, tiles_x_;
  ptrdiff_t x_freq_, g_freq_;  // floats between frequencies of the spectra of an image
  size_t x_group_, g_group_, filter_group_;
  int chunk_;  // groups of tiles at a time
};

}  // namespace fastcnn
