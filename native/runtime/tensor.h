// Where a value lives: the layout contract between planner, steps and kernels.
//
// Blocked: [n][channel block][border + h + border][border + w + border][V]; channels past the last are kept finite
// (their weights are zero). The border is part of the buffer and zero, so that convolutions need no edge cases.
// Plain: row-major as numpy has it; a rank-4 plain tensor may have a border too (planar stems).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastcnn {

enum class Space : int { kArena = 0, kInput = 1, kOutput = 2, kConstant = 3 };

struct Tensor {
  Space space = Space::kArena;
  int index = 0;         // which input, output or constant
  ptrdiff_t offset = 0;  // floats from the start of that memory to the first byte of the buffer, border included
  bool blocked = false;
  std::vector<int64_t> dims;  // logical shape
  int n = 1, c = 1, h = 1, w = 1;
  int top = 0, left = 0, bottom = 0, right = 0;
  int lanes = 1;   // V for blocked tensors
  int blocks = 1;  // channel blocks; c for plain tensors
  ptrdiff_t image = 0, plane = 0, row = 0, pixel = 1;

  int64_t count() const {
    int64_t total = 1;
    for (int64_t d : dims) total *= d;
    return total;
  }
  bool has_border() const { return (top | left | bottom | right) != 0; }
  ptrdiff_t interior() const { return top * row + left * pixel; }
};

}  // namespace fastcnn
