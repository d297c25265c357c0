// Bytes of a program: where they come from, their checksum, and a cursor that cannot leave them.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "capi/error.h"

namespace fastcnn {

static_assert(std::endian::native == std::endian::little, "programs are little-endian and read as they stand");

// CRC-32 of IEEE 802.3 (polynomial 0xedb88320, reflected), as zlib's crc32; `crc` continues an earlier one.
uint32_t crc32(const void* data, size_t size, uint32_t crc = 0);

class Source {
 public:
  virtual ~Source() = default;
  virtual uint64_t size() const = 0;
  // Copies bytes offset ... offset + size - 1, which the caller has checked against size(). Throws ProgramError.
  virtual void read(uint64_t offset, void* to, size_t size) = 0;
};

class FileSource final : public Source {
 public:
  explicit FileSource(const char* path);
  uint64_t size() const override { return size_; }
  void read(uint64_t offset, void* to, size_t size) override;

 private:
  std::ifstream file_;
  uint64_t size_ = 0;
};

class MemorySource final : public Source {
 public:
  MemorySource(const void* data, size_t size) : data_(static_cast<const unsigned char*>(data)), size_(size) {}
  uint64_t size() const override { return size_; }
  void read(uint64_t offset, void* to, size_t size) override {
    if (size != 0) std::memcpy(to, data_ + offset, size);
  }

 private:
  const unsigned char* data_;
  size_t size_;
};

// Reads values one after the other; says which field was cut off.
class Cursor {
 public:
  Cursor(const unsigned char* data, size_t size) : data_(data), size_(size) {}

  template <class T>
  T value(const char* field) {
    need(sizeof(T), field);
    T v;
    std::memcpy(&v, data_ + at_, sizeof(T));
    at_ += sizeof(T);
    return v;
  }
  // u16 length, then that many bytes of UTF-8 without control characters.
  std::string text(const char* field);
  // u32 length, then that many i64.
  std::vector<int64_t> list(const char* field, size_t most);
  // A count of records to come; each takes at least `least` bytes, so that a lie is found before memory is asked for.
  size_t count(const char* field, size_t most, size_t least);
  size_t left() const { return size_ - at_; }

 private:
  void need(size_t bytes, const char* field) const {
    if (bytes > left()) bad_program(std::string("the records end within ") + field);
  }
  const unsigned char* data_;
  size_t size_, at_ = 0;
};

}  // namespace fastcnn
