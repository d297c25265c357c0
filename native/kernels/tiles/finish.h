// What follows the sums of a tile: bias, residual, activation. Included by the forms, once per ISA.
#pragma once

#include "base/simd.h"
#include "kernels/tiles/tiles.h"

namespace fastcnn {
namespace {

// One row of a tile, in place: bias, residual, activation in their order.
template <int V>
[[gnu::noinline]] void finish(float* line, int pixels, const TileOutput& o, const float* residual) {
  for (int pass = 0; pass < 2; ++pass) {
    const bool add = residual != nullptr && o.act_before_residual == (pass == 1);
    for (int j = 0; j < pixels; ++j) {
      Vec<V> v = load<V>(line + j * V);
      if (pass == 0 && o.bias != nullptr) v = v + load<V>(o.bias);
      if (add) v = v + load<V>(residual + j * o.res_pixel);
      store<V>(line + j * V, v);
    }
    if (pass == 0) activate_run<V>(line, pixels, *o.act, o.slope);
  }
}

}  // namespace
}  // namespace fastcnn
