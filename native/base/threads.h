// Thread pool for short parallel regions: one fork per inference, and barriers between the layers, at which threads
// look and yield for a moment before they sleep, as workers do between inferences.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace fastcnn {

// Where threads wait for what another one does: first they look, then they yield, then they sleep, since whoever they
// wait for may need their core, or wait for it behind other programs.
class Meeting {
 public:
  // Until ready(), which reads an atomic; looks `spins` times before it yields.
  template <class Ready>
  void wait(int spins, Ready ready) {
    if (!seen(spins, ready)) sleep(ready);
  }
  template <class Ready>
  void sleep(Ready ready) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1);  // sequentially consistent: either we see the change, or who made it sees us asleep
    wake_.wait(lock, ready);
    sleeping_.fetch_sub(1);
  }
  // After the change, which is sequentially consistent too.
  void announce() {
    if (sleeping_.load() == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }

 private:
  template <class Ready>
  static bool seen(int spins, Ready ready) {
    for (int spin = 0; spin < spins; ++spin) {
      if (ready()) return true;
      pause();
    }
    for (int yields = 0; yields < kYields; ++yields) {
      if (ready()) return true;
      yield();
    }
    return false;
  }
  static void pause();
  static void yield();

  static constexpr int kYields = 64;  // some 30 us where no other thread takes the core
  std::atomic<int> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

// All `threads` members must call wait(); looks `spins` times before it gives up its core.
class Barrier {
 public:
  Barrier(int threads, int spins) : threads_(threads), spins_(spins) {}
  void wait();

 private:
  const int threads_, spins_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
  Meeting meeting_;
};

// One lock for the bookkeeping of all nets and pools, held across fork() so that a child never inherits it locked.
std::mutex& fork_safe_mutex();
// Counts the forks between the first process and this one: what other threads held at a fork is lost in the child.
unsigned fork_generation();

class ThreadPool {
 public:
  using Job = void (*)(void* argument, int thread, int threads);

  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  Barrier& barrier() { return barrier_; }

  // Runs job(argument, t, threads()) for every t, thread 0 on the caller. False, and nothing run, if another caller
  // has the team: it then runs its work alone.
  bool try_run(Job job, void* argument);
  // The same, waiting for the team.
  void run(Job job, void* argument);

  // The process-wide pool of that size, made anew after a fork.
  static std::shared_ptr<ThreadPool> shared(int threads);

 private:
  void work(int thread);
  void run_team(Job job, void* argument);
  void stop();

  const int threads_;
  const int spins_;  // of a thread that waits, before it yields; 0 if the team is larger than the cores
  Barrier barrier_;
  std::mutex team_;
  Job job_ = nullptr;
  void* argument_ = nullptr;
  alignas(64) std::atomic<unsigned> generation_{0};
  alignas(64) std::atomic<int> running_{0};
  std::atomic<bool> stopping_{false};
  Meeting start_, end_;
  std::vector<std::thread> workers_;
};

}  // namespace fastcnn
