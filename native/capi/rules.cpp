#include "capi/rules.h"

#include <algorithm>
#include <cmath>

namespace fastcnn {

int64_t bounded_product(std::initializer_list<int64_t> factors) {
  int64_t total = 1;
  for (int64_t f : factors) {
    if (f == 0) return 0;
    total = total > kMost / f ? kMost + 1 : total * f;
  }
  return total;
}

void StepRule::fail(const std::string& what) const {
  bad_program("step " + std::to_string(index_) + " (" + s.op + "): " + what);
}

static std::string range(int64_t least, int64_t most) { return std::to_string(least) + ".." + std::to_string(most); }

int64_t StepRule::integer(const std::string& key, int64_t least, int64_t most) {
  seen_.insert(key);
  const auto it = s.numbers.find(key);
  if (it == s.numbers.end()) fail("number '" + key + "' is missing");
  // The comparison comes first: casting NaN or 1e300 to an integer is undefined.
  const double v = it->second;
  if (!(v >= static_cast<double>(least) && v <= static_cast<double>(most)) || v != std::floor(v)) {
    fail("'" + key + "' is " + std::to_string(v) + ", not a whole number in " + range(least, most));
  }
  return static_cast<int64_t>(v);
}

int64_t StepRule::integer(const std::string& key, int64_t least, int64_t most, int64_t otherwise) {
  seen_.insert(key);
  return s.numbers.count(key) != 0 ? integer(key, least, most) : otherwise;
}

double StepRule::number(const std::string& key) {
  seen_.insert(key);
  const auto it = s.numbers.find(key);
  if (it == s.numbers.end()) fail("number '" + key + "' is missing");
  if (std::isnan(it->second)) fail("'" + key + "' is not a number");
  return it->second;
}

const std::vector<int64_t>& StepRule::list(const std::string& key, int64_t least, int64_t most) {
  seen_.insert(key);
  const auto it = s.lists.find(key);
  if (it == s.lists.end()) fail("list '" + key + "' is missing");
  for (int64_t v : it->second) {
    if (v < least || v > most) fail("'" + key + "' holds " + std::to_string(v) + ", not in " + range(least, most));
  }
  return it->second;
}

const std::vector<int64_t>& StepRule::list(const std::string& key, size_t length, int64_t least, int64_t most) {
  const std::vector<int64_t>& found = list(key, least, most);
  if (found.size() != length) {
    fail("'" + key + "' has " + std::to_string(found.size()) + " entries, needs " + std::to_string(length));
  }
  return found;
}

std::string StepRule::word(const std::string& key, std::initializer_list<const char*> allowed) {
  seen_.insert(key);
  const auto it = s.words.find(key);
  if (it == s.words.end()) fail("word '" + key + "' is missing");
  for (const char* one : allowed) {
    if (it->second == one) return it->second;
  }
  fail("'" + key + "' is '" + it->second + "', which is not known");
}

std::string StepRule::stored() {
  return s.words.count("weights") != 0 ? word("weights", {"f32", "i16", "bf16"}) : "f32";
}

const FloatArray& StepRule::weight(const std::string& key, size_t rank) {
  seen_weights_.insert(key);
  const auto it = s.weights.find(key);
  if (it == s.weights.end()) fail("weight '" + key + "' is missing");
  if (it->second.shape.size() != rank) fail("weight '" + key + "' needs " + std::to_string(rank) + " axes");
  return it->second;
}

void StepRule::vector_weight(const std::string& key, int64_t length) {
  if (weight(key, 1).shape[0] != length) fail("weight '" + key + "' needs " + std::to_string(length) + " values");
}

void StepRule::inputs(size_t count) const {
  if (s.in.size() != count) {
    fail("has " + std::to_string(s.in.size()) + " inputs, needs " + std::to_string(count));
  }
  for (const Tensor& t : s.in) memory(t, false);
  memory(s.out, true);
}

void StepRule::memory(const Tensor& t, bool is_output) const {
  const bool own =
      t.space == Space::kArena || t.space == Space::kBand || t.space == (is_output ? Space::kOutput : Space::kInput);
  require(own, is_output ? "writes to memory it may not" : "reads from memory it may not");
  require(t.floats() || (t.signs() ? signs : bytes), "has no use for such a map");
  require(bounded_product({t.n, t.h, t.w}) < INT32_MAX / 2, "a map has too many pixels");
  require(bounded_product({t.blocks, t.lanes}) < INT32_MAX / 2, "a map has too many channels");
  int64_t count = 1;
  for (int64_t d : t.dims) {
    require(d >= 1 && d <= kMost && count <= kMost / d, "extents out of range");
    count *= d;
  }
  require(count == bounded_product({t.n, t.c, t.h, t.w}), "extents and map differ");
  if (t.space == Space::kBand) {  // the rest is for the group to check, which knows all who touch it
    require(t.blocked && t.top == 0 && t.bottom == 0 && t.offset == 0, "a band is blocked and has no rows of border");
    require(t.index < kMostMembers, "a band has a number that no group gives");
    return;
  }
  const int64_t own_image = bounded_product({t.blocks, t.plane});
  require(t.image >= own_image && t.image <= kMost, "images overlap");
  const int64_t floats = (bounded_product({t.n - 1, t.image})) + own_image;
  if (t.space == Space::kArena) {
    require(t.index == 0 && t.offset >= 0 && floats <= kMost && t.offset <= kMost, "lies outside the arena");
    require(static_cast<uint64_t>(t.offset + floats) <= p.arena_floats, "lies outside the arena");
    // Vector loads need whole blocks where blocks begin, and the planner begins every value on a cache line.
    require(!t.floats() || (t.offset % t.lanes == 0 && t.image % t.lanes == 0), "is not aligned");
    return;
  }
  const std::vector<ExternalTensor>& all = is_output ? p.outputs : p.inputs;
  require(static_cast<size_t>(t.index) < all.size(), is_output ? "names no output" : "names no input");
  require(!t.blocked && !t.has_border() && t.offset == 0 && t.image == own_image, "an array of the caller is dense");
  require(static_cast<size_t>(count) == all[static_cast<size_t>(t.index)].count, "differs from the array's extents");
}

void StepRule::flat(const Tensor& t) const {
  require(!t.blocked && !t.has_border() && t.image == t.plane * t.blocks, "needs a dense plain tensor");
}

void StepRule::same_map(const Tensor& a, const Tensor& b) const {
  require(a.n == b.n && a.c == b.c && a.h == b.h && a.w == b.w, "maps differ");
}

void StepRule::reach(int64_t out, int64_t stride, int64_t dilation, int64_t kernel, int64_t pad, int64_t size,
                     int64_t before, int64_t after) const {
  const int64_t last = (out - 1) * stride - pad + (kernel - 1) * dilation;
  require(-pad >= -before && last <= size - 1 + after, "reads past the border of its input");
  require(last + pad < INT32_MAX / 2, "reaches too far");  // steps count rows and columns in an int
}

void StepRule::reach_rows(int64_t out, int64_t stride, int64_t dilation, int64_t kernel,
                          const std::vector<int64_t>& padding, const Tensor& in) const {
  const bool band = in.space == Space::kBand;
  reach(out, stride, dilation, kernel, padding[0], in.h, band ? padding[0] : in.top, band ? padding[2] : in.bottom);
}

void StepRule::walk(const std::vector<int64_t>& dims, const std::vector<int64_t>& strides, int64_t base,
                    int64_t count) const {
  require(base >= 0 && base < count, "starts outside its tensor");
  int64_t last = base;
  for (size_t d = 0; d < dims.size(); ++d) {
    last += bounded_product({dims[d] - 1, strides[d]});
    require(last < count, "walks out of its tensor");
  }
}

size_t StepRule::epilogue(bool bias, bool residual) {
  std::string act = "none";
  if (s.words.count("act") != 0) {
    act = word("act", {"none", "clamp", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "gelu", "gelu_tanh",
                       "leaky_relu", "elu", "prelu", "exp", "softplus", "mish"});
  }
  if (act == "clamp") number("act_lo"), number("act_hi");
  if (act == "leaky_relu" || act == "elu") number("act_alpha");
  if (act == "prelu") {
    require(s.out.blocked, "prelu needs a channel-blocked map");
    vector_weight("slope", s.out.c);
  }
  if (bias && s.weights.count("bias") != 0) vector_weight("bias", s.out.c);
  if (!residual) return 1;
  integer("act_before_residual", 0, 1, 0);
  return 1 + static_cast<size_t>(integer("residual", 0, 1, 0));
}

void StepRule::finish() {
  integer("zero_border", 0, 1, 1);
  const auto left_over = [&](const auto& map, const std::set<std::string>& seen) {
    for (const auto& entry : map) {
      if (seen.count(entry.first) == 0) fail("'" + entry.first + "' is not known to this step");
    }
  };
  left_over(s.numbers, seen_);
  left_over(s.lists, seen_);
  left_over(s.words, seen_);
  left_over(s.weights, seen_weights_);
}

}  // namespace fastcnn
