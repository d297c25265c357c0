#include "kernels/spectral/spectral.h"

#include <cmath>

namespace fastcnn {

const SpectralKernels& spectral_kernels_scalar();
const SpectralKernels& spectral_kernels_avx2();
const SpectralKernels& spectral_kernels_avx512();
const SpectralKernels& spectral_kernels_avx512_vnni();
const SpectralKernels& spectral_kernels_avx512_emulated();

const SpectralKernels& spectral_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, spectral_kernels_) }

bool spectral_split(int lanes, int points, int& first, int& second) {
  // Multiples of both vector widths; from the middle outwards, as passes of about the same length stay shortest.
  static constexpr int kSizes[] = {8, 16, 24, 32, 40, 48, 64};
  int best = 0;
  for (int size : kSizes) {
    if (size % lanes != 0 || points % size != 0) continue;
    const int other = points / size;
    for (int partner : kSizes) {
      if (partner != other || partner % lanes != 0) continue;
      const int longer = size > other ? size : other;
      if (best == 0 || longer < best) {
        best = longer;
        first = size;
        second = other;
      }
    }
  }
  return best != 0;
}

void spectral_roots(int lanes, int points, float* roots) {
  int first = 0, second = 0;
  if (!spectral_split(lanes, points, first, second)) return;
  // Of the first pass's output a and the second's input b, exp(-2 pi i a b / points), b running fastest.
  const double step = -2.0 * 3.14159265358979323846 / points;
  for (int a = 0; a < first; ++a) {
    for (int b = 0; b < second; ++b) {
      roots[a * second + b] = static_cast<float>(std::cos(step * a * b));
      roots[points + a * second + b] = static_cast<float>(std::sin(step * a * b));
    }
  }
}

}  // namespace fastcnn
