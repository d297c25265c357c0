#include "base/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/amx/amx.h"
#include "kernels/bits/bits.h"
#include "kernels/peak/peak.h"

namespace fastcnn {
namespace {

// Calls work(thread) on all threads until `seconds` have passed; the best time of one round.
template <class Work>
double best_round(int threads, double seconds, Work work) {
  if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be between 1 and 1024");
  ThreadPool pool(threads);
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  const auto start = Clock::now();
  double best = 1e30;
  while (since(start) < seconds) {
    const auto t0 = Clock::now();
    pool.try_run([](void* w, int thread, int) { (*static_cast<Work*>(w))(thread); }, &work);
    best = std::min(best, since(t0));
  }
  return best;
}

}  // namespace

double measure_fma_gmacs(Isa isa, int threads) {
  const PeakKernels& k = peak_kernels(isa);
  constexpr int64_t kIterations = 200000;
  std::atomic<float> keep{0};
  const double best = best_round(threads, 0.25, [&](int) { keep.store(k.fma(kIterations)); });
  return static_cast<double>(kIterations) * k.chains * k.lanes * threads / best / 1e9;
}

double measure_bf16_gmacs(Isa isa, int threads) {
  const PeakKernels& k = peak_kernels(isa);
  constexpr int64_t kIterations = 200000;
  std::atomic<float> keep{0};
  const double best = best_round(threads, 0.25, [&](int) { keep.store(k.dots(kIterations)); });
  return 2.0 * static_cast<double>(kIterations) * k.dot_chains * k.lanes * threads / best / 1e9;
}

double measure_amx_gmacs(Isa isa, int threads) {
  const AmxKernels* k = amx_kernels(isa);
  if (k == nullptr || k->emulated) return 0;
  constexpr int64_t kIterations = 20000;
  const double best = best_round(threads, 0.25, [&](int) { k->peak(kIterations); });
  return static_cast<double>(kIterations) * kAmxPixels * kAmxPanel * 16 * kAmxChannels * threads / best / 1e9;
}

double measure_bit_gmacs(Isa isa, int threads) {
  const BitsKernels& k = bits_kernels(isa);
  constexpr int64_t kIterations = 200000;
  std::atomic<uint32_t> keep{0};
  const double best = best_round(threads, 0.25, [&](int) { keep.store(k.peak(kIterations)); });
  return 32.0 * static_cast<double>(kIterations) * k.peak_chains * k.lanes * threads / best / 1e9;
}

double measure_read_gbps(Isa isa, int threads, int megabytes) {
  if (megabytes < 1 || megabytes > 65536) throw std::invalid_argument("megabytes must be between 1 and 65536");
  const PeakKernels& k = peak_kernels(isa);
  const size_t floats = (static_cast<size_t>(megabytes) << 20) / sizeof(float);
  const Buffer data(floats);
  const size_t share = floats / static_cast<size_t>(threads) / 64 * 64;
  std::atomic<float> keep{0};
  const double best =
      best_round(threads, 0.4, [&](int t) { keep.store(k.read(data.data() + static_cast<size_t>(t) * share, share)); });
  return static_cast<double>(share) * threads * sizeof(float) / best / 1e9;
}

}  // namespace fastcnn
