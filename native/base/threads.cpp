#include "base/threads.h"

#include <pthread.h>
#include <sched.h>

#include <map>

#include "base/isa.h"

namespace fastcnn {
namespace {

std::mutex& book_mutex() {
  static std::mutex* mutex = new std::mutex;  // never destroyed: nets may outlive static objects
  return *mutex;
}

std::atomic<unsigned> forks{0};

constexpr int kSpins = 4096;  // some 100 us on current x86

// In a team larger than the cores, whoever waits may be keeping from its core the very thread it waits for.
int spins_of(int threads) { return threads > cpu_info().logical_cores ? 0 : kSpins; }

}  // namespace

std::mutex& fork_safe_mutex() {
  static const bool registered = [] {
    pthread_atfork([] { book_mutex().lock(); }, [] { book_mutex().unlock(); },
                   [] {
                     forks.fetch_add(1);
                     book_mutex().unlock();
                   });
    return true;
  }();
  static_cast<void>(registered);
  return book_mutex();
}

unsigned fork_generation() { return forks.load(std::memory_order_relaxed); }

void Meeting::pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void Meeting::yield() { sched_yield(); }

void Barrier::wait() {
  if (threads_ == 1) return;
  const unsigned phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1);
    meeting_.announce();
    return;
  }
  meeting_.wait(spins_, [&] { return phase_.load() != phase; });
}

ThreadPool::ThreadPool(int threads) : threads_(threads), spins_(spins_of(threads)), barrier_(threads, spins_) {
  try {
    workers_.reserve(static_cast<size_t>(threads));
    for (int t = 1; t < threads; ++t) workers_.emplace_back(&ThreadPool::work, this, t);
  } catch (...) {
    stop();  // joinable threads must not be destroyed
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_.store(true);
  generation_.fetch_add(1);
  start_.announce();
  for (std::thread& worker : workers_) worker.join();
}

bool ThreadPool::try_run(Job job, void* argument) {
  std::unique_lock<std::mutex> team(team_, std::try_to_lock);
  if (!team.owns_lock()) return false;
  run_team(job, argument);
  return true;
}

void ThreadPool::run(Job job, void* argument) {
  std::lock_guard<std::mutex> team(team_);
  run_team(job, argument);
}

void ThreadPool::run_team(Job job, void* argument) {
  if (threads_ > 1) {
    job_ = job;
    argument_ = argument;
    running_.store(threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1);
    start_.announce();
  }
  job(argument, 0, threads_);
  end_.wait(spins_, [&] { return running_.load() == 0; });
}

void ThreadPool::work(int thread) {
  unsigned seen = 0;
  while (true) {
    start_.wait(spins_, [&] { return generation_.load() != seen; });
    ++seen;
    if (stopping_.load()) return;
    job_(argument_, thread, threads_);
    if (running_.fetch_sub(1) == 1) end_.announce();
  }
}

std::shared_ptr<ThreadPool> ThreadPool::shared(int threads) {
  static std::map<int, std::shared_ptr<ThreadPool>>* pools = new std::map<int, std::shared_ptr<ThreadPool>>;
  static unsigned generation = fork_generation();
  std::lock_guard<std::mutex> lock(fork_safe_mutex());
  if (generation != fork_generation()) {
    // A forked child has none of the parent's workers: joining them would hang, so the old pools are left behind.
    pools = new std::map<int, std::shared_ptr<ThreadPool>>;
    generation = fork_generation();
  }
  std::shared_ptr<ThreadPool>& pool = (*pools)[threads];
  if (pool == nullptr) pool = std::make_shared<ThreadPool>(threads);
  return pool;
}

}  // namespace fastcnn
