// Steps that run together, a few rows at a time, so that the maps between them stay in the cache of one core.
//
// Each thread has its rows of the last member's output, or whole images. For every band of them it runs the members in
// order, each for the rows that the next one needs and that are not there yet. The maps between the members (bands,
// runtime/tensor.h) hold a few rows, which move up as the band moves down: no row is computed twice, but for those that
// two threads need. Every output is the same sum as without the group.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "runtime/step.h"

namespace fastcnn {

constexpr int kMostMembers = 8;

struct GroupSpec {
  size_t first = 0, last = 0;  // steps, both included
  int rows = 1;                // of the last member's output in one band
};

// What the net remembers of a step's operands.
struct Operands {
  std::vector<Tensor> in;
  Tensor out;

  bool touches_bands() const;
};

// The time a thread works on every step, where a profile asks for it.
class StepClock {
 public:
  // seconds[step * repeats] is added to.
  StepClock(double* seconds, size_t repeats) : seconds_(seconds), repeats_(repeats) {
    if (seconds_ != nullptr) last_ = std::chrono::steady_clock::now();
  }
  void charge(size_t step) {
    if (seconds_ == nullptr) return;
    const auto now = std::chrono::steady_clock::now();
    seconds_[step * repeats_] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  // What has passed was spent waiting.
  void skip() {
    if (seconds_ != nullptr) last_ = std::chrono::steady_clock::now();
  }

 private:
  double* seconds_;
  size_t repeats_;
  std::chrono::steady_clock::time_point last_;
};

class Group {
 public:
  // Throws std::invalid_argument if these steps cannot run in bands: every tensor that is a band is then known to be
  // written by one member, read by the next, and large enough.
  Group(const GroupSpec& spec, const std::vector<std::unique_ptr<Step>>& steps, const std::vector<Operands>& operands);

  size_t first() const { return first_; }
  size_t last() const { return first_ + members_.size() - 1; }
  size_t floats() const { return floats_; }  // of one thread: its bands, and scratch of the members

  // This thread's part; `memory` is its own floats(). No barrier inside.
  void run(const RunContext& ctx, float* memory, StepClock& clock) const;

 private:
  struct Member {
    const Step* step = nullptr;
    RowReach reach;
    Tensor out;
    ptrdiff_t memory = 0;  // of its band, from the thread's memory
  };
  struct Rows {
    int begin = 0, end = 0;
  };
  struct State;

  void image(const RunContext& ctx, State& state, int n, int row0, int row1, StepClock& clock) const;
  static void clear_outside(float* base, const Tensor& t, const Rows& made, int begin, int end);
  void advance(const RunContext& ctx, State& state, int n, int row0, int row1, StepClock& clock) const;

  size_t first_ = 0, scratch_ = 0, floats_ = 0;  // scratch begins after the bands
  int rows_ = 1;
  std::vector<Member> members_;
};

}  // namespace fastcnn
