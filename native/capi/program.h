// The program file (.fcp): a planned net as the runtime takes it, and nothing else.
//
//   0   8  magic "FASTCNNP"
//   8   4  format version
//   12  4  CRC-32 of bytes 16 ... 63 and of the records
//   16  8  bytes of the file
//   24  8  bytes of the records
//   32  8  where the weights begin: 64 + records, rounded up to 64
//   40  8  bytes of the weights
//   48 16  zero
//   64     records, then zeros up to the weights; the weights are float32 arrays at multiples of 64 bytes
//
// Records, little-endian, one after the other. A text is u16 bytes + UTF-8, a list u32 extents + i64 each:
//
//   text made_by, text isa, u32 lanes, u32 threads, u64 arena floats, f64 tolerance, f64 error (NaN: none)
//   u32 inputs,  of each: text name, list dims           u32 outputs, likewise
//   u32 steps,   of each: text op, u32 inputs, a TENSOR each, the output's TENSOR,
//                         u32 attributes, of each: text key, u8 kind, f64 | list | text (kinds 0, 1, 2)
//                         u32 weights, of each: text key, list dims, u64 offset in the weights, u32 CRC-32
//   u32 groups,  of each: u32 first step, u32 last step, u32 rows of a band: runtime/group.h (since version 2)
//   TENSOR:      u8 space (0 arena, 1 input, 2 output, 3 band), u8 layout (0 plain, 1 blocked, 2 signs: since
//                version 3, 3 bytes: since version 4), u32 index, i64 offset, u32 border[4] (top, left, bottom, right),
//                u32 nchw[4], i64 image (0: dense; of a band: the rows there is room for), list dims
#pragma once

#include <string>
#include <vector>

#include "capi/bytes.h"
#include "runtime/group.h"
#include "runtime/step.h"

namespace fastcnn {

constexpr uint32_t kProgramVersion = 4;

struct ExternalTensor {
  std::string name;
  std::vector<int64_t> dims;
  size_t count = 0;
};

struct WeightRef {
  std::string key;
  uint64_t offset = 0;  // in the file, bytes
  uint32_t crc = 0;
};

struct ProgramStep {
  StepSpec spec;  // weights have shape and size; their data is null until it is read
  std::vector<WeightRef> weights;
};

struct Program {
  std::string made_by;
  Isa isa = Isa::kScalar;
  int lanes = 1, threads = 1;
  uint64_t arena_floats = 0;
  double tolerance = 0, error = 0;
  std::vector<ExternalTensor> inputs, outputs;
  std::vector<ProgramStep> steps;
  std::vector<GroupSpec> groups;  // the runtime checks them (Net::set_groups)
};

// Throws ProgramError if more bytes are needed than the limit allows.
void check_memory(uint64_t needed, uint64_t limit);

// Checks the container and what can be checked of a record alone, and holds no more than `limit` bytes of records;
// validate.h does the rest. Throws ProgramError.
Program read_program(Source& source, uint64_t limit);

}  // namespace fastcnn
