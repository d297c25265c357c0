// One line per pixel tile in an ISA file: cache blocks of steps outside, panels inside.
#pragma once

#define FASTCNN_DIRECT_TILE(P, MAXNV)                                                \
  if (config.tile == P) {                                                            \
    for (int step = 0; step < s.steps; step += s.step_block) {                       \
      const int end = step + s.step_block < s.steps ? step + s.step_block : s.steps; \
      if (s.lanes == 1) {                                                            \
        panels<V, P, 1, MAXNV>(s, a, config.panel, step, end);                       \
      } else {                                                                       \
        panels<V, P, V, MAXNV>(s, a, config.panel, step, end);                       \
      }                                                                              \
    }                                                                                \
    return;                                                                          \
  }
