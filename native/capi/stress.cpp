// Many callers, nets and teams at once, for a build with -fsanitize=thread: what two threads touch without an order
// between them shows there. Every output is compared, bit for bit, with that of one caller on one thread.
//
//   fastcnn_stress ROUNDS PROGRAM.fcp ...
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "base/threads.h"
#include "capi/load.h"
#include "fastcnn.h"

namespace {

using namespace fastcnn;
using Arrays = std::vector<std::vector<float>>;

std::atomic<int> failures{0};

void fail(const std::string& what) {
  if (failures.fetch_add(1) < 10) std::fprintf(stderr, "stress: %s\n", what.c_str());
}

// Pseudo-random numbers, the same in every run (a linear congruence of Knuth's).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) { below(1); }
  uint32_t below(uint32_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>((state_ >> 33) % n);
  }

 private:
  uint64_t state_;
};

// Now and then a moment without work: shorter than a worker spins, about as long, or so long that it sleeps.
void idle(Random& random) {
  constexpr int kMicroseconds[] = {0, 0, 0, 30, 100, 150, 1000, 3000};
  const int wait = kMicroseconds[random.below(8)];
  if (wait > 0) std::this_thread::sleep_for(std::chrono::microseconds(wait));
}

// Runs all of them at once, and waits for all.
void together(std::vector<std::function<void()>> parts) {
  std::vector<std::thread> threads;
  for (auto& part : parts) threads.emplace_back(std::move(part));
  for (std::thread& thread : threads) thread.join();
}

std::vector<float*> pointers(Arrays& arrays) {
  std::vector<float*> all;
  for (auto& a : arrays) all.push_back(a.data());
  return all;
}

// A program, inputs for it, and what one thread makes of them.
class Subject {
 public:
  explicit Subject(const char* path) : path_(path) {
    const LoadedProgram loaded = load(1);
    Random random(1);
    for (const ExternalTensor& t : loaded.program.inputs) {
      inputs_.emplace_back(t.count);
      for (float& x : inputs_.back()) x = static_cast<float>(random.below(4001)) / 1000.0f - 2.0f;
    }
    for (const ExternalTensor& t : loaded.program.outputs) outputs_.emplace_back(t.count);
    for (const auto& x : inputs_) in_.push_back(x.data());
    loaded.net->run(in_.data(), pointers(outputs_).data());
  }

  const char* path() const { return path_; }
  const float* const* in() const { return in_.data(); }

  LoadedProgram load(int threads) const {
    FileSource source(path_);
    LoadOptions options;
    options.threads = threads;
    return load_program(source, options);
  }

  // Arrays to run into, full of NaN.
  Arrays blank() const {
    Arrays arrays;
    for (const auto& y : outputs_) arrays.emplace_back(y.size(), std::numeric_limits<float>::quiet_NaN());
    return arrays;
  }

  void check(const Arrays& got, const char* how) const {
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (std::memcmp(got[i].data(), outputs_[i].data(), outputs_[i].size() * sizeof(float)) != 0) {
        fail(std::string(path_) + ": output " + std::to_string(i) + " differs, " + how);
      }
    }
  }

 private:
  const char* path_;
  Arrays inputs_, outputs_;
  std::vector<const float*> in_;
};

void call(const Subject& subject, Net& net, int rounds, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < rounds; ++i) {
    Arrays y = subject.blank();
    net.run(subject.in(), pointers(y).data());
    subject.check(y, "of a call among others");
    idle(random);
  }
}

void profile(const Subject& subject, Net& net, int rounds) {
  Arrays y = subject.blank();
  std::vector<double> times(net.steps() * static_cast<size_t>(rounds), -1.0);
  net.profile(subject.in(), pointers(y).data(), rounds, times.data());
  subject.check(y, "of a profile");
  if (std::any_of(times.begin(), times.end(), [](double t) { return !(t >= 0.0); })) fail("a profile without times");
}

// Through the C boundary: a net is loaded, runs a few times and is freed, while others run.
void load_and_free(const Subject& subject, int threads, int rounds, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < rounds; ++i) {
    fastcnn_error error;
    fastcnn_options options = FASTCNN_OPTIONS_INIT;
    options.threads = threads;
    fastcnn_net* net = nullptr;
    fastcnn_status status = fastcnn_load(subject.path(), &options, &net, &error);
    Arrays y = subject.blank();
    for (int k = 0; k < 2 && status == FASTCNN_OK; ++k) {
      status = fastcnn_run(net, subject.in(), pointers(y).data(), &error);
    }
    if (status == FASTCNN_OK) {
      subject.check(y, "of a net loaded meanwhile");
    } else {
      fail(error.message);
    }
    fastcnn_free(net);
    idle(random);
  }
}

// What every member of a team writes before the barrier, every other reads behind it; in plain memory.
struct Sums {
  Barrier* barrier;
  std::vector<int> given, sums;
};

void add_up(void* argument, int thread, int threads) {
  Sums& s = *static_cast<Sums*>(argument);
  const size_t own = static_cast<size_t>(thread);
  for (int phase = 1; phase <= 20; ++phase) {
    s.given[own] = phase + thread;
    s.barrier->wait();
    int sum = 0;
    for (int given : s.given) sum += given;
    s.sums[own] = sum;
    s.barrier->wait();
    if (sum != phase * threads + threads * (threads - 1) / 2) fail("a barrier let a thread through too soon");
  }
}

// Teams that come and go, each with two callers.
void teams(int rounds, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < rounds; ++i) {
    const size_t size = 1 + random.below(5);
    ThreadPool pool(static_cast<int>(size));
    std::atomic<int> refused{0};
    const auto caller = [&](bool wait, uint64_t own_seed) {
      Random own(own_seed);
      for (int k = 0; k < 4; ++k) {
        Sums s{&pool.barrier(), std::vector<int>(size), std::vector<int>(size)};
        if (wait) {
          pool.run(add_up, &s);
        } else if (!pool.try_run(add_up, &s)) {
          refused.fetch_add(1);
          continue;
        }
        const auto equal = std::count(s.sums.begin(), s.sums.end(), s.sums[0]);
        if (equal != static_cast<std::ptrdiff_t>(size)) fail("sums of a team differ");
        idle(own);
      }
    };
    together({[&] { caller(true, seed + 1); }, [&] { caller(false, seed + 2); }});
    if (refused.load() > 4) fail("a team refused more often than it was asked");
  }
}

void stress(int rounds, const std::vector<Subject>& subjects) {
  // One net, several callers: one gets the team, the others run alone or wait for a workspace.
  for (const Subject& subject : subjects) {
    for (int threads : {1, 2, 3, 4}) {
      const LoadedProgram loaded = subject.load(threads);
      Net& net = *loaded.net;
      together({[&] { call(subject, net, rounds, 1); }, [&] { call(subject, net, rounds, 2); },
                [&] { call(subject, net, rounds, 3); }, [&] { profile(subject, net, rounds); }});
    }
  }
  // Every net at once, on teams of their own or shared ones, while nets and teams come and go.
  std::vector<LoadedProgram> nets;
  std::vector<std::function<void()>> parts;
  nets.reserve(subjects.size());
  for (size_t i = 0; i < subjects.size(); ++i) {
    const Subject& subject = subjects[i];
    nets.push_back(subject.load(1 + static_cast<int>(i) % 4));
    Net& net = *nets.back().net;
    parts.push_back([&subject, &net, i, rounds] { call(subject, net, 2 * rounds, i); });
  }
  for (int i = 0; i < 2; ++i) {
    const Subject& subject = subjects[static_cast<size_t>(i) % subjects.size()];
    parts.push_back([&subject, i, rounds] { load_and_free(subject, 2 + i, rounds, static_cast<uint64_t>(i)); });
  }
  parts.push_back([rounds] { teams(rounds, 7); });
  together(std::move(parts));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 2 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: %s ROUNDS PROGRAM.fcp ...\n", argv[0]);
    return 2;
  }
  try {
    std::vector<Subject> subjects;
    for (int i = 2; i < argc; ++i) subjects.emplace_back(argv[i]);
    stress(rounds, subjects);
  } catch (const std::exception& e) {
    fail(e.what());
  }
  if (failures.load() != 0) return 1;
  std::printf("ok\n");
  return 0;
}
