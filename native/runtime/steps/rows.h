// How steps that touch every pixel once share their work: rows of every plane where maps are tall enough, so that
// neighbouring steps split space alike and a core reads what it has just written; whole planes otherwise.
#pragma once

#include <algorithm>

#include "runtime/step.h"

namespace fastcnn {

// f(n, channel block, first row, last row + 1) for this thread's share of a blocked tensor.
template <class F>
void for_each_plane(const RunContext& ctx, const Tensor& t, F&& f) {
  const int64_t planes = static_cast<int64_t>(t.n) * t.blocks;
  int64_t begin = 0, end = planes, row0 = 0, row1 = t.h;
  if (t.h >= 2 * ctx.threads && t.n % ctx.threads != 0) {
    ctx.part(t.h, row0, row1);
  } else {
    ctx.part(planes, begin, end);
  }
  for (int64_t i = begin; i < end; ++i) {
    f(static_cast<int>(i / t.blocks), static_cast<int>(i % t.blocks), static_cast<int>(row0), static_cast<int>(row1));
  }
}

// Channels past the last are kept finite: a value that is none there (0/0, a fill of -inf) would reach real channels
// through their zero weights. Clears those lanes of `pixels` pixels of the last block.
inline void clear_dead_lanes(const Tensor& t, int block, float* row, int64_t pixels) {
  const int live = t.c - block * t.lanes;
  if (live >= t.lanes) return;
  for (int64_t x = 0; x < pixels; ++x) std::fill(row + x * t.lanes + live, row + (x + 1) * t.lanes, 0.0f);
}

}  // namespace fastcnn
