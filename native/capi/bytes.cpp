#include "capi/bytes.h"

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace fastcnn {
namespace {

// Eight tables: eight bytes a turn ("slicing by 8", Kounavis and Berry 2005).
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c >> 1) ^ (0xedb88320u & (0u - (c & 1u)));
    t[0][i] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 0xff];
  }
  return t;
}

constexpr Tables kTables = make_tables();

// Whether a text is UTF-8 without control characters: it may stand in a message and on a terminal.
bool printable_utf8(const std::string& s) {
  for (size_t i = 0; i < s.size();) {
    const auto at = [&](size_t k) { return static_cast<unsigned char>(s[k]); };
    const unsigned char lead = at(i);
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || length > s.size() - i || (length == 1 && (lead < 0x20 || lead == 0x7f))) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
    }
    // Over-long forms, surrogates, and what lies beyond Unicode.
    if ((lead == 0xe0 && at(i + 1) < 0xa0) || (lead == 0xed && at(i + 1) > 0x9f) ||
        (lead == 0xf0 && at(i + 1) < 0x90) || (lead == 0xf4 && at(i + 1) > 0x8f)) {
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

uint32_t crc32(const void* data, size_t size, uint32_t crc) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    v ^= crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(v >> (8 * k)) & 0xff];
  }
  for (; size > 0; --size, ++p) crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xff];
  return ~crc;
}

FileSource::FileSource(const char* path) {
  const auto cannot = [&](const std::string& why) {
    throw ProgramError(FASTCNN_CANNOT_READ, "it cannot be read: " + why);
  };
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) cannot("no such file");
  if (!std::filesystem::is_regular_file(status)) cannot("not a file");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) cannot(error.message());
  errno = 0;
  file_.open(path, std::ios::binary);
  if (!file_) cannot(errno != 0 ? std::generic_category().message(errno) : "it cannot be opened");
  size_ = size;
}

void FileSource::read(uint64_t offset, void* to, size_t size) {
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(offset));
  file_.read(static_cast<char*>(to), static_cast<std::streamsize>(size));
  if (!file_) throw ProgramError(FASTCNN_CANNOT_READ, "the file gave fewer bytes than it has: it changed while read");
}

std::string Cursor::text(const char* field) {
  const size_t length = value<uint16_t>(field);
  need(length, field);
  std::string s(reinterpret_cast<const char*>(data_ + at_), length);
  if (!printable_utf8(s)) bad_program(std::string(field) + " has a name that is no printable text");
  at_ += length;
  return s;
}

std::vector<int64_t> Cursor::list(const char* field, size_t most) {
  std::vector<int64_t> v(count(field, most, sizeof(int64_t)));
  if (!v.empty()) std::memcpy(v.data(), data_ + at_, v.size() * sizeof(int64_t));
  at_ += v.size() * sizeof(int64_t);
  return v;
}

size_t Cursor::count(const char* field, size_t most, size_t least) {
  const size_t n = value<uint32_t>(field);
  if (n > most) bad_program(std::string(field) + ": " + std::to_string(n) + " is more than " + std::to_string(most));
  if (n > left() / least) bad_program(std::string("the records end within ") + field);
  return n;
}

}  // namespace fastcnn
