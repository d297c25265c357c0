#include "capi/program.h"

#include <algorithm>
#include <cmath>

namespace fastcnn {
namespace {

constexpr char kMagic[8] = {'F', 'A', 'S', 'T', 'C', 'N', 'N', 'P'};
constexpr size_t kHeader = 64;
constexpr size_t kAlign = 64;
constexpr uint64_t kMostRecords = uint64_t{256} << 20;  // bytes; a plan of a thousand steps has a few hundred KB
constexpr size_t kMostExternals = 4096;                 // as the runtime
constexpr size_t kMostSteps = 1 << 20;
constexpr size_t kMostInputs = 16, kMostKeys = 64, kMostRank = 8;
constexpr size_t kMostList = 1 << 24;
constexpr int64_t kMostFloats = int64_t{1} << 40;

struct Header {
  char magic[8];
  uint32_t version, crc;
  uint64_t file_bytes, record_bytes, weights_offset, weight_bytes, zero[2];
};
static_assert(sizeof(Header) == kHeader);

uint64_t round_up(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

Header read_header(Source& source) {
  Header h;
  if (source.size() < kHeader) {
    bad_program("it has " + std::to_string(source.size()) + " bytes: too short for a fastcnn program");
  }
  source.read(0, &h, kHeader);
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) {
    bad_program("it does not begin like a fastcnn program: `fastcnn export` makes one from a .fcnn file");
  }
  if (h.version < 1 || h.version > kProgramVersion) {
    bad_program("its format is " + std::to_string(h.version) + ", this library reads 1 to " +
                std::to_string(kProgramVersion) + ": upgrade the library, or export the program again");
  }
  if (h.file_bytes != source.size()) {
    bad_program("it has " + std::to_string(source.size()) + " bytes and should have " + std::to_string(h.file_bytes) +
                ": it is cut off or not one program");
  }
  if (h.record_bytes > std::min(kMostRecords, source.size() - kHeader) ||
      h.weights_offset != round_up(kHeader + h.record_bytes) || h.weights_offset > source.size() ||
      h.weight_bytes != source.size() - h.weights_offset || h.zero[0] != 0 || h.zero[1] != 0) {
    bad_program("its header's sizes do not fit the file: it is damaged");
  }
  return h;
}

int64_t count_of(const std::vector<int64_t>& dims, const std::string& what) {
  int64_t count = 1;
  for (int64_t d : dims) {
    if (d < 1 || d > kMostFloats || count > kMostFloats / d) bad_program(what + ": extents out of range");
    count *= d;
  }
  return count;
}

std::vector<ExternalTensor> read_externals(Cursor& c, const char* what) {
  std::vector<ExternalTensor> all(c.count(what, kMostExternals, 6));
  for (ExternalTensor& t : all) {
    t.name = c.text(what);
    t.dims = c.list(what, kMostRank);
    t.count = static_cast<size_t>(count_of(t.dims, std::string(what) + " '" + t.name + "'"));
  }
  return all;
}

Tensor read_tensor(Cursor& c, int lanes) {
  Tensor t;
  const int space = c.value<uint8_t>("a tensor");
  if (space > 3) bad_program("a tensor lives in memory " + std::to_string(space) + ": allowed are 0, 1, 2, 3");
  t.space = space == 3 ? Space::kBand : static_cast<Space>(space);
  const int layout = c.value<uint8_t>("a tensor");
  if (layout > 3) bad_program("a tensor's layout is " + std::to_string(layout) + ": allowed are 0, 1, 2 and 3");
  t.blocked = layout != 0;
  t.element = layout == 2 ? Element::kSigns : layout == 3 ? Element::kBytes : Element::kFloat;
  const auto small = [&](uint32_t least) {
    const uint32_t v = c.value<uint32_t>("a tensor");
    if (v < least || v > INT32_MAX / 2) bad_program("a tensor has an extent of " + std::to_string(v));
    return static_cast<int>(v);
  };
  t.index = small(0);
  t.offset = c.value<int64_t>("a tensor");
  for (int* side : {&t.top, &t.left, &t.bottom, &t.right}) *side = small(0);
  for (int* extent : {&t.n, &t.c, &t.h, &t.w}) *extent = small(1);
  const int64_t image = c.value<int64_t>("a tensor");
  t.dims = c.list("a tensor", kMostRank);
  t.lanes = t.blocked ? lanes_of(t.element, t.c, lanes) : 1;
  t.blocks = !t.floats() ? 1 : t.blocked ? (t.c + lanes - 1) / lanes : t.c;
  if (t.space == Space::kBand) {
    if (image < 1 || image > INT32_MAX / 2) bad_program("a band has room for " + std::to_string(image) + " rows");
    t.rows = static_cast<int>(image);
  }
  const int64_t row = (static_cast<int64_t>(t.left) + t.w + t.right) * t.lanes;
  const int64_t rows = t.space == Space::kBand ? t.rows : static_cast<int64_t>(t.top) + t.h + t.bottom;
  if (row > kMostFloats / rows || rows * row > kMostFloats / t.blocks) bad_program("a tensor is too large");
  t.set_strides(image);
  return t;
}

template <class Map, class Value>
void put(Map& map, const std::string& op, const std::string& key, Value&& value) {
  if (!map.emplace(key, std::forward<Value>(value)).second) bad_program("step " + op + " gives '" + key + "' twice");
}

ProgramStep read_step(Cursor& c, int lanes, const Header& header) {
  ProgramStep step;
  StepSpec& s = step.spec;
  s.op = c.text("an op");
  const size_t inputs = c.count("a step's inputs", kMostInputs, 58);
  for (size_t i = 0; i < inputs; ++i) s.in.push_back(read_tensor(c, lanes));
  s.out = read_tensor(c, lanes);
  for (size_t n = c.count("a step's attributes", kMostKeys, 5); n > 0; --n) {
    const std::string key = c.text("an attribute");
    switch (const int kind = c.value<uint8_t>("an attribute"); kind) {
      case 0:
        put(s.numbers, s.op, key, c.value<double>("a number"));
        break;
      case 1:
        put(s.lists, s.op, key, c.list("a list", kMostList));
        break;
      case 2:
        put(s.words, s.op, key, c.text("a word"));
        break;
      default:
        bad_program("attribute '" + key + "' is of kind " + std::to_string(kind) + ": allowed are 0, 1, 2");
    }
  }
  for (size_t n = c.count("a step's weights", kMostKeys, 18); n > 0; --n) {
    WeightRef ref;
    ref.key = c.text("a weight");
    FloatArray array;
    array.shape = c.list("a weight", kMostRank);
    array.size = static_cast<size_t>(count_of(array.shape, "weight '" + ref.key + "'"));
    const uint64_t offset = c.value<uint64_t>("a weight");
    ref.crc = c.value<uint32_t>("a weight");
    if (offset % kAlign != 0 || offset > header.weight_bytes ||
        array.size > (header.weight_bytes - offset) / sizeof(float)) {
      bad_program("step " + s.op + ": weight '" + ref.key + "' lies outside the file");
    }
    ref.offset = header.weights_offset + offset;
    put(s.weights, s.op, ref.key, array);
    step.weights.push_back(ref);
  }
  return step;
}

// Bytes a step takes in memory, about: several times its record's, most of it nodes of maps.
uint64_t held_bytes(const ProgramStep& step) {
  constexpr uint64_t kNode = 64;  // of a map, besides its value
  const StepSpec& s = step.spec;
  uint64_t bytes = sizeof step + s.in.size() * sizeof(Tensor) + s.numbers.size() * (kNode + sizeof(double)) +
                   s.words.size() * (kNode + sizeof(std::string)) + s.weights.size() * (kNode + sizeof(FloatArray)) +
                   step.weights.size() * sizeof(WeightRef);
  for (const auto& list : s.lists) bytes += kNode + sizeof(list.second) + list.second.size() * sizeof(int64_t);
  return bytes;
}

Isa read_isa(Cursor& c) {
  const std::string name = c.text("isa");
  try {
    return isa_from_name(name);
  } catch (const std::invalid_argument&) {
    bad_program("it is for instruction set '" + name + "', which this library does not know: upgrade the library");
  }
}

}  // namespace

void check_memory(uint64_t needed, uint64_t limit) {
  if (needed <= limit) return;
  throw ProgramError(FASTCNN_OUT_OF_MEMORY, "it needs " + std::to_string(needed >> 20) + " MiB, the limit is " +
                                                std::to_string(limit >> 20) + " MiB");
}

Program read_program(Source& source, uint64_t limit) {
  const Header header = read_header(source);
  check_memory(header.record_bytes, limit);
  std::vector<unsigned char> records(static_cast<size_t>(header.record_bytes));
  source.read(kHeader, records.data(), records.size());
  const uint32_t crc = crc32(records.data(), records.size(), crc32(&header.file_bytes, kHeader - 16));
  if (crc != header.crc) bad_program("the checksum of its records does not match: it is damaged");

  Cursor c(records.data(), records.size());
  Program p;
  p.made_by = c.text("made_by");
  p.isa = read_isa(c);
  p.lanes = static_cast<int>(c.value<uint32_t>("lanes"));
  if (p.lanes != isa_lanes(p.isa)) {
    bad_program("its maps have blocks of " + std::to_string(p.lanes) + " channels, " + isa_name(p.isa) + " has " +
                std::to_string(isa_lanes(p.isa)) + ": export it again with this version");
  }
  const uint32_t threads = c.value<uint32_t>("threads");
  if (threads < 1 || threads > 256) bad_program("threads=" + std::to_string(threads) + " is not in 1..256");
  p.threads = static_cast<int>(threads);
  p.arena_floats = c.value<uint64_t>("arena");
  if (p.arena_floats > static_cast<uint64_t>(kMostFloats)) bad_program("its arena is too large");
  p.tolerance = c.value<double>("tolerance");
  p.error = c.value<double>("error");
  if (!(p.tolerance > 0 && p.tolerance < 1) || p.error < 0 || std::isinf(p.error)) {
    bad_program("its tolerance or error is out of range");
  }
  p.inputs = read_externals(c, "input");
  p.outputs = read_externals(c, "output");
  if (p.outputs.empty()) bad_program("it has no output");
  uint64_t held = header.record_bytes;
  for (size_t n = c.count("steps", kMostSteps, 72); n > 0; --n) {
    p.steps.push_back(read_step(c, p.lanes, header));
    held += held_bytes(p.steps.back());
    check_memory(held, limit);
  }
  for (size_t n = header.version < 2 ? 0 : c.count("groups", p.steps.size(), 12); n > 0; --n) {
    GroupSpec group;
    group.first = c.value<uint32_t>("a group");
    group.last = c.value<uint32_t>("a group");
    const uint32_t rows = c.value<uint32_t>("a group");
    if (rows > INT32_MAX / 2) bad_program("a group has bands of " + std::to_string(rows) + " rows");
    group.rows = static_cast<int>(rows);
    p.groups.push_back(group);
  }
  if (c.left() != 0) bad_program(std::to_string(c.left()) + " bytes follow its last record");
  return p;
}

}  // namespace fastcnn
