// The executor: an ordered list of steps over one arena, some of them in groups. Carries a plan out and decides
// nothing.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/group.h"
#include "runtime/step.h"

namespace fastcnn {

class Net {
 public:
  Net(Isa isa, int threads);
  ~Net();

  Isa isa() const { return isa_; }
  int threads() const { return threads_; }
  size_t add_step(StepSpec spec);                  // returns its index
  void replace_step(size_t index, StepSpec spec);  // for the tuner; not while the net runs
  void set_arena(size_t floats) { arena_floats_ = floats; }
  // Which steps run together. Throws std::invalid_argument where they cannot.
  void set_groups(std::vector<GroupSpec> groups);
  // Sizes scratch and checks the groups again; must follow the last add, replace or set_groups.
  void finish();
  // Gives back scratch memory that steps needed which are no longer there.
  void trim();

  // One inference. Thread-safe: each call takes its own workspace; callers beyond the number of cores wait for one.
  void run(const float* const* inputs, float* const* outputs);

  // `repeats` inferences; the seconds of every step of every repeat, step-major: times[step * repeats + r].
  void profile(const float* const* inputs, float* const* outputs, int repeats, double* times);

  // Fills every workspace with NaN (tests): what is read before it is written shows in the output.
  void poison();

  // Floats each input and output array must have.
  const std::vector<size_t>& input_floats() const { return input_floats_; }
  const std::vector<size_t>& output_floats() const { return output_floats_; }

  size_t steps() const { return steps_.size(); }
  const Step& step(size_t i) const { return *steps_[i]; }
  size_t weight_bytes() const;
  size_t arena_floats() const { return arena_floats_; }
  size_t scratch_floats() const { return scratch_floats_; }
  // Bands and scratch of the groups, of all threads.
  size_t group_floats() const { return static_cast<size_t>(threads_) * thread_floats_; }

 private:
  struct Workspace {
    Buffer arena, scratch, groups;
  };
  struct Job;
  class Lease;  // a workspace for one call, given back whatever happens

  void execute(const Job& job, int thread, int threads) const;
  void check_groups();
  void note_external(const Tensor& t);
  Workspace* acquire();
  void release(Workspace* workspace);
  void start(Job& job);
  std::unique_ptr<Workspace> make_workspace() const;

  Isa isa_;
  int threads_;
  size_t needed_scratch() const;
  size_t arena_size() const;  // floats, with those that steps may read behind it

  size_t arena_floats_ = 0, scratch_floats_ = 0, thread_floats_ = 0;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Operands> operands_;
  std::vector<GroupSpec> group_specs_;
  std::vector<Group> groups_;  // in order
  // With fork_safe_mutex(), which also guards the members below. In a child it still counts the parent's waiting
  // threads, and waking or destroying it could wait for them: there it is left behind.
  std::unique_ptr<std::condition_variable> freed_ = std::make_unique<std::condition_variable>();
  unsigned forks_ = 0;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  std::vector<Workspace*> free_;
  size_t most_workspaces_ = 1, begun_workspaces_ = 0;
  std::vector<size_t> input_floats_, output_floats_;
};

}  // namespace fastcnn
