// What the rule of an op is written with: typed, ranged attributes that are ticked off as they are read.
#pragma once

#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "capi/program.h"

namespace fastcnn {

constexpr int64_t kMost = int64_t{1} << 40;  // floats of anything; sums and products below stay far from overflow

// Product of factors >= 0, cut off at kMost + 1.
int64_t bounded_product(std::initializer_list<int64_t> factors);

class StepRule {
 public:
  StepRule(const Program& program, const ProgramStep& step, size_t index) : p(program), s(step.spec), index_(index) {}

  [[noreturn]] void fail(const std::string& what) const;
  void require(bool fine, const char* what) const {
    if (!fine) fail(what);
  }

  // Attributes. Each says the name and the allowed range when it refuses.
  int64_t integer(const std::string& key, int64_t least, int64_t most);
  int64_t integer(const std::string& key, int64_t least, int64_t most, int64_t otherwise);
  double number(const std::string& key);  // not NaN
  const std::vector<int64_t>& list(const std::string& key, size_t length, int64_t least, int64_t most);
  const std::vector<int64_t>& list(const std::string& key, int64_t least, int64_t most);  // of any length
  std::string word(const std::string& key, std::initializer_list<const char*> allowed);
  std::string stored();  // the word "weights": f32 where it is not given, i16 or bf16

  // Weights.
  const FloatArray& weight(const std::string& key, size_t rank);
  void vector_weight(const std::string& key, int64_t length);

  // Tensors. inputs() also checks every tensor's memory against arena, inputs and outputs.
  void inputs(size_t count) const;
  void blocked(const Tensor& t) const { require(t.blocked, "needs a channel-blocked map"); }
  void flat(const Tensor& t) const;  // plain, dense, without a border
  void same_map(const Tensor& a, const Tensor& b) const;
  void same_batch(const Tensor& a, const Tensor& b) const { require(a.n == b.n, "batches differ"); }
  // Windows of `out` positions along one axis stay within the map and its border.
  void reach(int64_t out, int64_t stride, int64_t dilation, int64_t kernel, int64_t pad, int64_t size, int64_t before,
             int64_t after) const;
  // The same along rows, for `padding` (top, left, bottom, right). A band has the rows that its group makes for the
  // step, those of the padding among them.
  void reach_rows(int64_t out, int64_t stride, int64_t dilation, int64_t kernel, const std::vector<int64_t>& padding,
                  const Tensor& in) const;
  // Positions base + sum of index * stride, index < dims, stay below `count`.
  void walk(const std::vector<int64_t>& dims, const std::vector<int64_t>& strides, int64_t base, int64_t count) const;

  // Activation, bias and slope; with `residual`, that too. Returns the number of inputs: 1, or 2 with a residual.
  size_t epilogue(bool bias, bool residual);
  // Every attribute and weight has been asked for.
  void finish();

  const Program& p;
  const StepSpec& s;
  int64_t packing = 0;  // floats held besides while the weights are packed
  int64_t past = 0;     // floats behind a map of the arena that it may read
  bool signs = false;   // whether its maps may be of signs
  bool bytes = false;   // or of bytes

 private:
  void memory(const Tensor& t, bool is_output) const;
  size_t index_;
  std::set<std::string> seen_, seen_weights_;
};

// Checks one step and returns an upper bound of the floats of its packed weights, less StepRule::packing.
using Rule = int64_t (*)(StepRule&);
const std::map<std::string, Rule>& step_rules();

int64_t direct_rule(StepRule& r);
int64_t transposed_rule(StepRule& r);
int64_t winograd_rule(StepRule& r);
int64_t fft_rule(StepRule& r);
int64_t fft_depthwise_rule(StepRule& r);
int64_t amx_rule(StepRule& r);
int64_t depthwise_rule(StepRule& r);
int64_t pool_rule(StepRule& r);
int64_t unary_rule(StepRule& r);
int64_t binary_rule(StepRule& r);
int64_t scale_shift_rule(StepRule& r);
int64_t softmax_rule(StepRule& r);
int64_t reduce_rule(StepRule& r);
int64_t math_rule(StepRule& r);
int64_t matmul_rule(StepRule& r);
int64_t unpool_rule(StepRule& r);
int64_t local_response_norm_rule(StepRule& r);
int64_t group_norm_rule(StepRule& r);
int64_t layer_norm_rule(StepRule& r);
int64_t relayout_rule(StepRule& r);
int64_t copy_region_rule(StepRule& r);
int64_t strided_copy_rule(StepRule& r);
int64_t gather_rule(StepRule& r);
int64_t fill_rule(StepRule& r);
int64_t resize_rule(StepRule& r);
int64_t spectral_rule(StepRule& r);
int64_t fastfood_rule(StepRule& r);
int64_t block_circulant_rule(StepRule& r);
int64_t signs_rule(StepRule& r);
int64_t sign_pool_rule(StepRule& r);
int64_t sign_conv_rule(StepRule& r);
int64_t sign_amx_rule(StepRule& r);
int64_t bytes_rule(StepRule& r);
int64_t bytes_to_floats_rule(StepRule& r);
int64_t byte_pool_rule(StepRule& r);
int64_t int8_conv_rule(StepRule& r);
int64_t int8_amx_rule(StepRule& r);
int64_t int8_depthwise_rule(StepRule& r);

}  // namespace fastcnn
