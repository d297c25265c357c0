// The layer between an untrusted program and the runtime, which trusts its caller: after it, every address a step can
// form lies inside the arena, an input, an output, its weights or its scratch. Stricter than safety needs: a step must
// look as the planner makes it, with every attribute known and none left over.
#pragma once

#include "capi/program.h"

namespace fastcnn {

// Bytes the net will hold: weights as the steps pack them (an upper bound), one arena; and what packing the largest
// step holds besides.
struct Memory {
  int64_t weight_bytes = 0, arena_bytes = 0, packing_bytes = 0;
};

// Throws ProgramError.
Memory validate(const Program& program);

// Ops the layer knows; a program with another one is refused.
std::vector<std::string> validated_ops();

}  // namespace fastcnn
