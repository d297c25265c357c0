// What loading throws inside; it never crosses the C boundary.
#pragma once

#include <stdexcept>
#include <string>

#include "fastcnn.h"

namespace fastcnn {

class ProgramError : public std::runtime_error {
 public:
  ProgramError(fastcnn_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  fastcnn_status status() const { return status_; }

 private:
  fastcnn_status status_;
};

[[noreturn]] inline void bad_program(const std::string& message) { throw ProgramError(FASTCNN_BAD_PROGRAM, message); }

}  // namespace fastcnn
