// One translation unit per ISA lists its tiles: TILE(P, MAXNV) for P pixels and up to MAXNV vectors of channels.
#pragma once

#include "kernels/direct/generic.h"

namespace fastcnn {
namespace {

template <int P_, int MAXNV_>
struct DirectTile {
  static constexpr int P = P_, MAXNV = MAXNV_;
};

// Cache blocks of steps outside, panels inside. One round at least: without a step left, of what follows the sums.
template <int V, class Tile, class T>
void run_tile(const DirectShape& s, const DirectArgsOf<T>& a, DirectConfig config) {
  const int last = a.step1 != 0 ? a.step1 : s.steps;
  int step = a.step0;
  do {
    const int end = step + s.step_block < last ? step + s.step_block : last;
    if (std::is_same_v<T, float> && s.lanes == 1) {
      if constexpr (std::is_same_v<T, float>) panels<V, Tile::P, 1, Tile::MAXNV>(s, a, config.panel, step, end);
    } else {
      panels<V, Tile::P, V, Tile::MAXNV>(s, a, config.panel, step, end);
    }
    step = end;
  } while (step < last);
}

template <int V, class T, class... Tiles>
void run_direct(const DirectShape& s, const DirectArgsOf<T>& a, DirectConfig config) {
  static_cast<void>(((config.tile == Tiles::P && (run_tile<V, Tiles>(s, a, config), true)) || ...));
}

template <int V, class... Tiles>
DirectKernels make_direct_kernels(Isa isa, std::initializer_list<DirectConfig> configs) {
  DirectKernels k = {isa, V, run_direct<V, float, Tiles...>, run_direct<V, Bf16, Tiles...>, to_bf16<V>, false, {}, 0};
#if defined(__AVX512BF16__)
  k.bf16_pays = V == 16;
#endif
  for (DirectConfig config : configs) k.configs[k.config_count++] = config;
  return k;
}

}  // namespace
}  // namespace fastcnn
