// Transforms of one row of numbers: Walsh-Hadamard, and complex Fourier transforms as layers of circulant matrices and
// of cosine transforms need them.
//
// A real row of 2 M numbers is the complex one z[j] = x[2 j] + i x[2 j + 1] of M. With Z its transform, the transform
// of x is a combination of Z[k] and conj(Z[M - k]); what a layer does to it (products with the transform of a
// circulant's vector, cosine transform, diagonal, back) is linear over the real numbers and joins k with M - k only. So
// all of it is one loop over k between two complex transforms:
//
//   Z'[k] = alpha[k] Z[k] + beta[k] conj(Z[M - k]) + gamma[k] conj(Z[k]) + delta[k] Z[M - k] + epsilon[k]
#pragma once

#include <cstddef>

#include "base/isa.h"

namespace fastcnn {

// Every pointer: `points` real parts, then `points` imaginary ones. gamma, delta, epsilon: null where they are zero.
struct SpectralMix {
  const float *alpha = nullptr, *beta = nullptr, *gamma = nullptr, *delta = nullptr, *epsilon = nullptr;
};

// Circulant blocks of b x b. A block of b real numbers has (b + 1) / 2 slots of two numbers each, its spectrum: slot 0
// holds the frequency 0 and, for even b, b / 2, which are real; slot s the real and imaginary part of frequency s.
struct BlockProduct {
  const float* x = nullptr;  // [slot][row][column][2]
  const float* w = nullptr;  // [slot][column][2][V], V rows of blocks at a time
  float* y = nullptr;        // [slot][row][2][V]
  ptrdiff_t x_slot = 0;      // floats between slots of x
  ptrdiff_t x_row = 0;
  int slots = 0, rows = 0, columns = 0;
};

struct SpectralKernels {
  Isa isa;
  int lanes;
  // X[k] = sum over n of x[n] exp(-2 pi i k n / points), natural order on both sides; in and out may be the same.
  // `points` is a product of two of the sizes below, each a multiple of the vector width; `roots`: from
  // spectral_roots(). work: 2 * points floats.
  void (*fft)(const float* in_re, const float* in_im, float* out_re, float* out_im, const float* roots, int points,
              float* work);
  // One number more than `points` each, z[points] = z[0]; out apart from in.
  void (*mix)(const float* z_re, const float* z_im, float* out_re, float* out_im, const SpectralMix& mix, int points);
  // In place, n a power of two; not normalised.
  void (*hadamard)(float* row, int n);
  // out[k] = sum over j of x[j] * matrix[j][k], j < count, in whole vectors; `width` floats from row to row of the
  // matrix.
  void (*small_product)(const float* x, ptrdiff_t x_stride, int count, const float* matrix, int width, float* out);
  void (*block_product)(const BlockProduct& p);
};

const SpectralKernels& spectral_kernels(Isa isa);

// Splits a number of points into the lengths of both passes; false where the kernels cannot.
bool spectral_split(int lanes, int points, int& first, int& second);
// 2 * points floats: the factors between the passes.
void spectral_roots(int lanes, int points, float* roots);

}  // namespace fastcnn
