// Rules of layers on plain rows (runtime/steps/spectral.cpp, block_circulant.cpp).
#include <cstdint>

#include "capi/rules.h"
#include "kernels/spectral/spectral.h"

namespace fastcnn {

// Rows that divide both tensors, and what may follow.
static int64_t rows_of(StepRule& r) {
  r.inputs(1);
  const Tensor &in = r.s.in[0], &out = r.s.out;
  r.flat(in);
  r.flat(out);
  const int64_t rows = r.integer("rows", 1, kMost);
  r.require(in.count() % rows == 0 && out.count() % rows == 0, "rows do not divide the tensors");
  r.epilogue(false, false);
  if (r.s.weights.count("bias") != 0) r.vector_weight("bias", out.count() / rows);
  return rows;
}

static int64_t row_blocks(StepRule& r) {
  rows_of(r);
  return r.integer("blocks", 1, 1 << 20);
}

static void fits(StepRule& r, int64_t blocks, int64_t each) {
  const int64_t outputs = r.s.out.count() / r.integer("rows", 1, kMost);
  r.require(outputs > bounded_product({blocks - 1, each}) && outputs <= bounded_product({blocks, each}),
            "blocks and outputs differ");
}

int64_t spectral_rule(StepRule& r) {
  const int64_t blocks = row_blocks(r), points = r.integer("points", 1, 1 << 20);
  const int64_t inputs = r.s.in[0].count() / r.integer("rows", 1, kMost);
  int first, second;
  r.require(inputs <= INT32_MAX, "a row has too many numbers");
  r.require(spectral_split(r.p.lanes, static_cast<int>(points), first, second), "no transform of that many points");
  r.list("gather", static_cast<size_t>(2 * points), 0, inputs - 1);
  const auto& place = r.list("place", 0, 2 * points - 1);
  r.require(!place.empty(), "no output has a place");
  fits(r, blocks, static_cast<int64_t>(place.size()));
  int64_t floats = 2 * points + 2 * points + static_cast<int64_t>(place.size());
  for (const char* key : {"scale", "alpha", "beta", "gamma", "delta", "epsilon"}) {
    const bool needed = key[0] == 's' || key[0] == 'a' || key[0] == 'b';
    if (!needed && r.s.weights.count(key) == 0) continue;
    r.vector_weight(key, bounded_product({blocks, 2, points}));
    floats += bounded_product({blocks, 2, points});
  }
  return floats + r.s.out.count();
}

int64_t fastfood_rule(StepRule& r) {
  const int64_t blocks = row_blocks(r), length = r.integer("length", 1, 1 << 30);
  const int64_t inputs = r.s.in[0].count() / r.integer("rows", 1, kMost);
  r.require((length & (length - 1)) == 0, "the length is no power of two");
  r.require(inputs <= length, "a row is longer than a block");
  fits(r, blocks, length);
  const int64_t all = bounded_product({blocks, length});
  r.list("permutation", static_cast<size_t>(all), 0, length - 1);
  for (const char* key : {"signs", "gauss", "scale"}) r.vector_weight(key, all);
  return bounded_product({4, all}) + r.s.out.count();
}

int64_t block_circulant_rule(StepRule& r) {
  const int64_t rows = rows_of(r), lanes = r.p.lanes;
  const std::vector<int64_t>& shape = r.weight("vectors", 3).shape;
  const int64_t p = shape[0], q = shape[1], b = shape[2];
  r.require(p >= 1 && q >= 1 && b >= 1 && b <= 1024, "blocks have a size of 1 to 1024");
  const int64_t inputs = r.s.in[0].count() / rows, outputs = r.s.out.count() / rows;
  r.require(inputs > bounded_product({q - 1, b}) && inputs <= bounded_product({q, b}), "blocks and inputs differ");
  r.require(outputs > bounded_product({p - 1, b}) && outputs <= bounded_product({p, b}), "blocks and outputs differ");
  const int64_t groups = (p + lanes - 1) / lanes * lanes, wide = (b + 1 + lanes) / lanes * lanes;
  return bounded_product({groups, q, b + 1}) + bounded_product({2, b + 1, wide}) + outputs;
}

}  // namespace fastcnn
