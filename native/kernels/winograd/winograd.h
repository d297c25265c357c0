// Winograd minimal filtering: the tile forms F(m, r) along both axes, or along one.
#pragma once

#include "base/isa.h"
#include "kernels/tiles/tiles.h"

namespace fastcnn {

struct WinogradKernel {
  int m_y, r_y, m_x, r_x;
  TileForm form;
  // What form.filter computes, in double: the matrices cancel.
  void (*spectra)(const TileFilter&);
};

struct WinogradForms {
  static constexpr int kMost = 24;
  Isa isa = Isa::kScalar;
  WinogradKernel forms[kMost] = {};
  int count = 0;
};

const WinogradForms& winograd_forms(Isa isa);

// Kernel of F(m, kh) down and F(m, kw) across, an axis of one tap left alone; null where there is none.
const WinogradKernel* find_winograd(Isa isa, int m, int kh, int kw);

// Copies AT (m x t), G (t x r), BT (t x t) in row-major order; false if there is no such form.
bool winograd_matrices_copy(int m, int r, double* at, double* g, double* bt);

}  // namespace fastcnn
