// A step of a plan: packed weights and everything decided; run() only computes.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/activation.h"
#include "base/isa.h"
#include "base/memory.h"
#include "base/region.h"
#include "base/threads.h"
#include "runtime/tensor.h"

namespace fastcnn {

struct FloatArray {
  std::vector<int64_t> shape;
  const float* data = nullptr;
  size_t size = 0;
};

// What the planner says about a step. Missing keys are errors: at() names them.
struct StepSpec {
  std::string op;
  std::vector<Tensor> in;
  Tensor out;
  std::map<std::string, double> numbers;
  std::map<std::string, std::vector<int64_t>> lists;
  std::map<std::string, std::string> words;
  std::map<std::string, FloatArray> weights;
  Isa isa = Isa::kScalar;
  int threads = 1;

  int64_t integer(const std::string& key) const { return static_cast<int64_t>(number(key)); }
  int64_t integer(const std::string& key, int64_t otherwise) const {
    const auto it = numbers.find(key);
    return it == numbers.end() ? otherwise : static_cast<int64_t>(it->second);
  }
  double number(const std::string& key) const {
    const auto it = numbers.find(key);
    if (it == numbers.end()) throw std::invalid_argument("step " + op + ": number '" + key + "' is missing");
    return it->second;
  }
  const std::vector<int64_t>& list(const std::string& key, size_t length) const {
    const auto it = lists.find(key);
    if (it == lists.end() || it->second.size() != length) {
      throw std::invalid_argument("step " + op + ": list '" + key + "' of length " + std::to_string(length) +
                                  " is missing");
    }
    return it->second;
  }
  std::string word(const std::string& key, const std::string& otherwise) const {
    const auto it = words.find(key);
    return it == words.end() ? otherwise : it->second;
  }
  const FloatArray& weight(const std::string& key) const {
    const auto it = weights.find(key);
    if (it == weights.end()) throw std::invalid_argument("step " + op + ": weight '" + key + "' is missing");
    return it->second;
  }
  bool has_weight(const std::string& key) const { return weights.count(key) != 0; }
};

struct RunContext {
  float* arena = nullptr;
  const float* const* inputs = nullptr;
  float* const* outputs = nullptr;
  float* scratch = nullptr;
  float* const* bands = nullptr;  // by member of the group that runs: where row 0 of its output is, or would be
  Barrier* barrier = nullptr;     // null when one thread runs alone
  int thread = 0, threads = 1;

  float* base(const Tensor& t) const {
    float* memory = t.space == Space::kArena    ? arena
                    : t.space == Space::kInput  ? const_cast<float*>(inputs[t.index])
                    : t.space == Space::kOutput ? outputs[t.index]
                    : t.space == Space::kBand   ? bands[t.index]
                                                : nullptr;
    return memory + t.offset;
  }
  // First interior element.
  float* at(const Tensor& t) const { return base(t) + t.interior(); }
  void sync() const {
    if (barrier != nullptr) barrier->wait();
  }
  // This thread's part of 0 ... count - 1, in whole multiples of `unit`.
  void part(int64_t count, int64_t& begin, int64_t& end, int64_t unit = 1) const {
    part_of(thread, threads, count, begin, end, unit);
  }
  static void part_of(int thread, int threads, int64_t count, int64_t& begin, int64_t& end, int64_t unit) {
    const int64_t units = (count + unit - 1) / unit;
    begin = units * thread / threads * unit;
    end = units * (thread + 1) / threads * unit;
    if (begin > count) begin = count;
    if (end > count) end = count;
  }
};

// The input rows that a row of output needs: row * stride + first, and the size - 1 that follow.
struct RowReach {
  int stride = 1, first = 0, size = 1;
};

class Step {
 public:
  virtual ~Step() = default;
  // Called by every thread of the team at once; no step may allocate, throw or touch what it does not own.
  virtual void run(const RunContext& ctx) const = 0;
  // Rows row0 ... row1 - 1 of one image, by the calling thread alone: for steps that have a row_reach().
  virtual void rows(const RunContext&, int, int, int) const {}
  virtual std::optional<RowReach> row_reach() const { return std::nullopt; }
  virtual size_t scratch_floats(int) const { return 0; }  // for that many threads
  // Floats behind the end of a map of the arena that it may read, whatever they are.
  virtual size_t reads_past() const { return 0; }
  virtual size_t weight_bytes() const { return 0; }
  virtual std::string kernel() const = 0;
  // What a thread reads first of its weights; empty for every thread of steps that have none.
  virtual Region opening(int, int) const { return {}; }

  // What it reads first of the weights that come after this step's.
  Region after(const RunContext& ctx) const {
    return following != nullptr ? following->opening(ctx.thread, ctx.threads) : Region{};
  }

  const Step* following = nullptr;  // the next step with weights to open, if any; set by the net
  Tensor out;
  bool zero_border = false;
  uint32_t border = 0;  // what its words hold
};

using StepFactory = std::unique_ptr<Step> (*)(const StepSpec&);

// Every op of the runtime: the one list (runtime/steps.cpp).
std::unique_ptr<Step> make_step(const StepSpec& spec);
std::vector<std::string> step_ops();

struct Epilogue {
  Activation act;
  bool act_before_residual = false;
  bool has_residual = false;  // the last input
  Buffer bias, slope;         // padded to whole channel blocks; empty if absent

  size_t bytes() const { return (bias.size() + slope.size()) * sizeof(float); }
};
Activation parse_activation(const StepSpec& spec);
// Reads activation, bias, slope and residual order; `blocks` * `lanes` channels.
Epilogue parse_epilogue(const StepSpec& spec, int blocks, int lanes);

}  // namespace fastcnn
