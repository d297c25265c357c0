// 64-byte aligned float buffers, on huge pages where the system offers them (read bandwidth gains a fifth).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace fastcnn {

// Gives the heap's free pages back to the system: it keeps those below the last block in use.
inline void return_free_pages() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

class Buffer {
 public:
  Buffer() = default;
  // Zero-filled. Throws std::bad_alloc, for sizes that no pointer difference counts too.
  explicit Buffer(size_t floats) : floats_(floats) {
    if (floats == 0) return;
    if (floats > kMostFloats) throw std::bad_alloc();
    const size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    data_ = static_cast<float*>(mapped_bytes() != 0 ? map(mapped_bytes()) : std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, bytes);  // touches every page
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), floats_(std::exchange(other.floats_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(floats_, other.floats_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (mapped_bytes() != 0) {
      unmap(data_, mapped_bytes());
    } else {
      std::free(data_);
    }
  }

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return floats_; }

 private:
  static constexpr size_t kHuge = size_t{2} << 20;
  static constexpr size_t kPage = size_t{64} << 10;  // a multiple of every system's
  // With what is rounded up, and mapped besides, PTRDIFF_MAX bytes at most.
  static constexpr size_t kMostFloats = (static_cast<size_t>(PTRDIFF_MAX) - 2 * kHuge) / sizeof(float);

  // Straight from the system: the heap would hand out memory that lies on small pages since its last use.
#if defined(__linux__)
  // The end goes on a huge page too where that wastes a sixteenth at most: packed weights are many buffers of a few
  // megabytes.
  size_t mapped_bytes() const {
    const size_t bytes = floats_ * sizeof(float);
    if (bytes < kHuge) return 0;
    const size_t whole = (bytes + kHuge - 1) / kHuge * kHuge;
    return whole - bytes <= bytes / 16 ? whole : (bytes + kPage - 1) / kPage * kPage;
  }
  static void* map(size_t bytes) {
    void* const found = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    char* const first = static_cast<char*>(found);
    const size_t skip = (kHuge - reinterpret_cast<uintptr_t>(found) % kHuge) % kHuge;
    if (skip != 0) munmap(first, skip);
    munmap(first + skip + bytes, kHuge - skip);  // never empty: skip < kHuge
#if defined(MADV_HUGEPAGE)
    madvise(first + skip, bytes, MADV_HUGEPAGE);
#endif
    return first + skip;
  }
  static void unmap(void* data, size_t bytes) { munmap(data, bytes); }
#else
  size_t mapped_bytes() const { return 0; }
  static void* map(size_t) { return nullptr; }
  static void unmap(void*, size_t) {}
#endif

  float* data_ = nullptr;
  size_t floats_ = 0;
};

}  // namespace fastcnn
