// Thread pool for short parallel regions: one fork per inference, spin barriers between the layers, and workers that
// spin for a moment after a job and then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace fastcnn {

// All `threads` members must call wait(); looks `spins` times, then yields, so that oversubscribed cores still make
// progress.
class Barrier {
 public:
  Barrier(int threads, int spins) : threads_(threads), spins_(spins) {}
  void wait();

 private:
  const int threads_, spins_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
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
  const int spins_;  // of a thread that waits for others, before it yields; 0 if the team is larger than the cores
  Barrier barrier_;
  std::mutex team_;
  Job job_ = nullptr;
  void* argument_ = nullptr;
  alignas(64) std::atomic<unsigned> generation_{0};
  alignas(64) std::atomic<int> running_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace fastcnn
