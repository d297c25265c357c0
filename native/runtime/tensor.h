// Where a value lives: the layout contract between planner, steps and kernels.
//
// Blocked: [n][channel block][border + h + border][border + w + border][V]; channels past the last are kept finite
// (their weights are zero). The border is part of the buffer and zero, so that convolutions need no edge cases.
// Plain: row-major as numpy has it; a rank-4 plain tensor may have a border too (planar stems).
// Signs: [n][border + h + border][border + w + border][word], one in each bit, 32 channels to a word (kernels/bits).
// Bytes: the same with four channels to a word, padded to 16, or to 4 where there are no more (kernels/int8); a border
// has the byte that stands for zero. A word takes the place of a float: such maps are blocked ones of a single block
// with as many lanes as a pixel has words.
// Band: a blocked map of which only some rows are there at a time, in memory of the thread that makes and reads them
// (runtime/net.h, Group). It has no rows of border: those that a kernel reads above and below the map are made, of
// zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastcnn {

enum class Space : int { kArena = 0, kInput = 1, kOutput = 2, kConstant = 3, kBand = 4 };

// What is in the place of a float.
enum class Element : int { kFloat = 0, kSigns = 1, kBytes = 2 };

// Lanes of a blocked map: of floats V, else the words of a pixel.
inline int lanes_of(Element element, int channels, int vector) {
  if (element == Element::kSigns) return (channels + 31) / 32;
  if (element == Element::kBytes) return channels <= 4 ? 1 : (channels + 15) / 16 * 4;
  return vector;
}

struct Tensor {
  Space space = Space::kArena;
  int index = 0;         // which input, output or constant; band: which member of the group writes it
  ptrdiff_t offset = 0;  // floats from the start of that memory to the first byte of the buffer, border included
  bool blocked = false;
  Element element = Element::kFloat;
  std::vector<int64_t> dims;  // logical shape
  int n = 1, c = 1, h = 1, w = 1;
  int top = 0, left = 0, bottom = 0, right = 0;
  int lanes = 1;   // V for blocked tensors
  int blocks = 1;  // channel blocks; c for plain tensors
  int rows = 0;    // of a band: how many there is room for
  ptrdiff_t image = 0, plane = 0, row = 0, pixel = 1;

  bool signs() const { return element == Element::kSigns; }
  bool bytes() const { return element == Element::kBytes; }
  bool floats() const { return element == Element::kFloat; }
  int64_t count() const {
    int64_t total = 1;
    for (int64_t d : dims) total *= d;
    return total;
  }
  // Sets rows, planes and images apart; `image_stride` 0: dense. A band holds rows of one image at a time.
  void set_strides(ptrdiff_t image_stride) {
    pixel = lanes;
    row = (static_cast<ptrdiff_t>(left) + w + right) * pixel;
    plane = (space == Space::kBand ? static_cast<ptrdiff_t>(rows) : static_cast<ptrdiff_t>(top) + h + bottom) * row;
    image = space == Space::kBand ? 0 : image_stride != 0 ? image_stride : plane * blocks;
  }
  bool has_border() const { return (top | left | bottom | right) != 0; }
  ptrdiff_t interior() const { return top * row + left * pixel; }
};

}  // namespace fastcnn
