#include "runtime/net.h"

#include <algorithm>
#include <system_error>

namespace fastcnn {

struct Net::Job {
  const Net* net = nullptr;
  Workspace* workspace = nullptr;
  const float* const* inputs = nullptr;
  float* const* outputs = nullptr;
  Barrier* barrier = nullptr;
  int repeats = 1;
  double* times = nullptr;
};

class Net::Lease {
 public:
  explicit Lease(Net& net) : workspace(net.acquire()), net_(net) {}
  ~Lease() { net_.release(workspace); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Workspace* const workspace;

 private:
  Net& net_;
};

Net::Net(Isa isa, int threads) : isa_(isa), threads_(threads), forks_(fork_generation()) {
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("threads=" + std::to_string(threads) + " is out of range: choose 1 to 1024");
  }
  const std::vector<Isa> available = available_isas();
  if (std::find(available.begin(), available.end(), isa) == available.end()) {
    throw std::invalid_argument(std::string("this CPU or build cannot run ") + isa_name(isa) + " kernels");
  }
  most_workspaces_ = static_cast<size_t>(std::max(1, cpu_info().logical_cores));
}

Net::~Net() {
  if (forks_ != fork_generation()) static_cast<void>(freed_.release());
}

size_t Net::add_step(StepSpec spec) {
  spec.isa = isa_;
  spec.threads = threads_;
  for (const Tensor& t : spec.in) note_external(t);
  note_external(spec.out);
  steps_.push_back(make_step(spec));
  operands_.push_back({spec.in, spec.out});
  return steps_.size() - 1;
}

void Net::replace_step(size_t index, StepSpec spec) {
  if (index >= steps_.size()) throw std::invalid_argument("replace_step: no such step");
  spec.isa = isa_;
  spec.threads = threads_;
  for (size_t i = 0; i < index; ++i) {
    if (steps_[i] != nullptr && steps_[i]->following == steps_[index].get()) steps_[i]->following = nullptr;
  }
  steps_[index].reset();  // first free the old weights: the two together can be hundreds of megabytes
  steps_[index] = make_step(spec);
  operands_[index] = {spec.in, spec.out};
}

void Net::set_groups(std::vector<GroupSpec> groups) {
  group_specs_ = std::move(groups);
  check_groups();
}

// Every step that touches a band is a member of one group.
void Net::check_groups() {
  groups_.clear();
  size_t next = 0, floats = 0;
  const auto alone = [&](size_t end) {
    for (; next < end; ++next) {
      if (operands_[next].touches_bands()) throw std::invalid_argument("a step outside of groups has a band");
    }
  };
  for (const GroupSpec& spec : group_specs_) {
    if (spec.first < next) throw std::invalid_argument("groups overlap or are out of order");
    groups_.emplace_back(spec, steps_, operands_);
    alone(spec.first);
    next = spec.last + 1;
    floats = std::max(floats, groups_.back().floats());
  }
  alone(steps_.size());
  thread_floats_ = floats;
}

void Net::finish() {
  if (std::any_of(steps_.begin(), steps_.end(), [](const auto& step) { return step == nullptr; })) {
    throw std::invalid_argument("a step could not be replaced");
  }
  const Step* opening = nullptr;
  for (size_t i = steps_.size(); i-- > 0;) {
    steps_[i]->following = opening;
    if (steps_[i]->opening(0, 1).bytes != 0) opening = steps_[i].get();
  }
  check_groups();
  const size_t scratch = needed_scratch();
  const auto fits = [&](const auto& w) {
    return w->groups.size() >= group_floats() && w->arena.size() == arena_size();
  };
  const bool fit = std::all_of(workspaces_.begin(), workspaces_.end(), fits);
  if (scratch <= scratch_floats_ && fit && !workspaces_.empty()) return;
  scratch_floats_ = std::max(scratch, scratch_floats_);
  workspaces_.clear();  // no call may run while steps are added or replaced
  std::unique_ptr<Workspace> first = make_workspace();
  std::lock_guard<std::mutex> lock(fork_safe_mutex());
  workspaces_.reserve(most_workspaces_);
  workspaces_.push_back(std::move(first));
  begun_workspaces_ = 1;
  free_.clear();
  free_.reserve(most_workspaces_);
  free_.push_back(workspaces_.back().get());
}

void Net::trim() {
  if (needed_scratch() >= scratch_floats_) return;
  scratch_floats_ = 0;
  workspaces_.clear();
  finish();
}

size_t Net::needed_scratch() const {
  size_t scratch = 0;
  for (const auto& step : steps_) {
    scratch = std::max({scratch, step->scratch_floats(1), step->scratch_floats(threads_)});
  }
  return scratch;
}

size_t Net::arena_size() const {
  size_t past = 0;
  for (const auto& step : steps_) past = std::max(past, step->reads_past());
  return arena_floats_ + past;
}

std::unique_ptr<Net::Workspace> Net::make_workspace() const {
  return std::make_unique<Workspace>(Workspace{Buffer(arena_size()), Buffer(scratch_floats_), Buffer(group_floats())});
}

void Net::note_external(const Tensor& t) {
  if (t.space != Space::kInput && t.space != Space::kOutput) return;
  std::vector<size_t>& sizes = t.space == Space::kInput ? input_floats_ : output_floats_;
  const size_t index = static_cast<size_t>(t.index);
  if (index >= 4096) throw std::invalid_argument("more than 4096 inputs or outputs");
  if (sizes.size() <= index) sizes.resize(index + 1);
  sizes[index] = std::max(sizes[index], static_cast<size_t>(t.count()));
}

size_t Net::weight_bytes() const {
  size_t bytes = 0;
  for (const auto& step : steps_) bytes += step != nullptr ? step->weight_bytes() : 0;
  return bytes;
}

Net::Workspace* Net::acquire() {
  std::unique_lock<std::mutex> lock(fork_safe_mutex());
  if (forks_ != fork_generation()) {  // in a child, the threads that held the others do not exist
    forks_ = fork_generation();
    static_cast<void>(freed_.release());
    freed_ = std::make_unique<std::condition_variable>();
    begun_workspaces_ = workspaces_.size();
    free_.clear();
    for (const auto& workspace : workspaces_) free_.push_back(workspace.get());
  }
  if (free_.empty() && begun_workspaces_ < most_workspaces_) {
    ++begun_workspaces_;
    lock.unlock();  // clearing megabytes must not hold up every other net
    std::unique_ptr<Workspace> made;
    try {
      made = make_workspace();
    } catch (...) {
      lock.lock();
      --begun_workspaces_;
      throw;
    }
    lock.lock();
    workspaces_.push_back(std::move(made));
    return workspaces_.back().get();
  }
  freed_->wait(lock, [&] { return !free_.empty(); });
  Workspace* workspace = free_.back();
  free_.pop_back();
  return workspace;
}

void Net::poison() {
  std::lock_guard<std::mutex> lock(fork_safe_mutex());
  for (const auto& workspace : workspaces_) {
    for (Buffer* buffer : {&workspace->arena, &workspace->scratch, &workspace->groups}) {
      std::fill(buffer->data(), buffer->data() + buffer->size(), __builtin_nanf(""));
    }
  }
}

void Net::release(Workspace* workspace) {
  {
    std::lock_guard<std::mutex> lock(fork_safe_mutex());
    free_.push_back(workspace);
  }
  freed_->notify_one();
}

// Fills the border of this thread's share of planes: with zeros, or with the bytes that stand for zero.
static void clear_border(const RunContext& ctx, const Tensor& t, uint32_t word) {
  const auto fill = [word](float* p, size_t count) {
    if (word == 0) {
      std::memset(p, 0, count * sizeof(float));
      return;
    }
    for (size_t i = 0; i < count; ++i) std::memcpy(p + i, &word, sizeof word);
  };
  int64_t begin, end;
  ctx.part(static_cast<int64_t>(t.n) * t.blocks, begin, end);
  for (int64_t i = begin; i < end; ++i) {
    float* plane = ctx.base(t) + i / t.blocks * t.image + i % t.blocks * t.plane;
    const size_t head = static_cast<size_t>(t.top * t.row + t.left * t.pixel);
    fill(plane, head);
    const size_t gap = static_cast<size_t>((t.left + t.right) * t.pixel);
    float* after = plane + head + t.w * t.pixel;
    for (int y = 0; y + 1 < t.h; ++y, after += t.row) fill(after, gap);
    fill(after, static_cast<size_t>(t.right * t.pixel + t.bottom * t.row));
  }
}

void Net::execute(const Job& job, int thread, int threads) const {
  RunContext ctx;
  ctx.arena = job.workspace->arena.data();
  ctx.scratch = job.workspace->scratch.data();
  ctx.inputs = job.inputs;
  ctx.outputs = job.outputs;
  ctx.barrier = threads > 1 ? job.barrier : nullptr;
  ctx.thread = thread;
  ctx.threads = threads;
  float* memory = job.workspace->groups.data() + static_cast<size_t>(thread) * thread_floats_;
  for (int r = 0; r < job.repeats; ++r) {
    const size_t repeats = static_cast<size_t>(job.repeats),
                 own = static_cast<size_t>(thread) * steps_.size() * repeats;
    StepClock clock(job.times != nullptr ? job.times + own + r : nullptr, repeats);
    auto group = groups_.begin();
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (group != groups_.end() && group->first() == i) {
        group->run(ctx, memory, clock);
        i = group->last();
        ++group;
      } else {
        steps_[i]->run(ctx);
      }
      const Step& step = *steps_[i];
      if (step.zero_border) clear_border(ctx, step.out, step.border);
      clock.charge(i);
      ctx.sync();
      clock.skip();
    }
  }
}

void Net::start(Job& job) {
  job.net = this;
  const auto entry = [](void* argument, int thread, int threads) {
    const Job& j = *static_cast<const Job*>(argument);
    j.net->execute(j, thread, threads);
  };
  if (threads_ > 1) {
    std::shared_ptr<ThreadPool> pool;
    try {
      pool = ThreadPool::shared(threads_);
    } catch (const std::system_error&) {
      // The system gives no more threads: the work is done all the same.
    }
    if (pool != nullptr) {
      job.barrier = &pool->barrier();
      if (job.times != nullptr) {  // a profile of a lone thread would be one of another plan
        pool->run(entry, &job);
        return;
      }
      if (pool->try_run(entry, &job)) return;
    }
  }
  execute(job, 0, 1);
}

void Net::run(const float* const* inputs, float* const* outputs) {
  const Lease lease(*this);
  Job job;
  job.workspace = lease.workspace;
  job.inputs = inputs;
  job.outputs = outputs;
  start(job);
}

void Net::profile(const float* const* inputs, float* const* outputs, int repeats, double* times) {
  const Lease lease(*this);
  Job job;
  job.workspace = lease.workspace;
  job.inputs = inputs;
  job.outputs = outputs;
  job.repeats = repeats;
  const size_t count = steps_.size() * static_cast<size_t>(repeats);
  std::vector<double> of_threads(count * static_cast<size_t>(threads_), 0.0);
  job.times = of_threads.data();
  start(job);
  // What the slowest thread took: a thread that the system puts aside makes a step look longer, never shorter.
  for (size_t i = 0; i < count; ++i) {
    times[i] = 0.0;
    for (size_t t = 0; t < static_cast<size_t>(threads_); ++t) times[i] = std::max(times[i], of_threads[t * count + i]);
  }
}

}  // namespace fastcnn
