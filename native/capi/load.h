// From a program to a net that runs.
#pragma once

#include <memory>

#include "capi/program.h"
#include "runtime/net.h"

namespace fastcnn {

struct LoadOptions {
  int threads = 0;            // 0: the program's, at most the cores of this process
  uint64_t memory_limit = 0;  // bytes; 0: the memory of the machine
};

struct LoadedProgram {
  Program program;  // steps are dropped once they are packed
  std::unique_ptr<Net> net;
};

LoadedProgram load_program(Source& source, const LoadOptions& options);

}  // namespace fastcnn
