// One line per pixel tile in an ISA file: cache blocks of steps outside, panels inside.
#pragma once

#define FASTCNN_DIRECT_TILE(P, MAXNV)                                          \
  if (config.tile == P) {                                                      \
    const int last = a.step1 != 0 ? a.step1 : s.steps;                         \
    for (int step = a.step0; step < last; step += s.step_block) {              \
      const int end = step + s.step_block < last ? step + s.step_block : last; \
      if (s.lanes == 1) {                                                      \
        panels<V, P, 1, MAXNV>(s, a, config.panel, step, end);                 \
      } else {                                                                 \
        panels<V, P, V, MAXNV>(s, a, config.panel, step, end);                 \
      }                                                                        \
    }                                                                          \
    return;                                                                    \
  }
