#include "capi/load.h"

#include <algorithm>
#include <cstddef>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "capi/validate.h"

namespace fastcnn {
namespace {

// Floats behind the arena: no kernel may touch them, and none does; a mistake of ours there would not leave the buffer.
constexpr size_t kSlack = 64;

// Sum of the counts, each of so many bytes; UINT64_MAX, which no limit allows, where it is more.
uint64_t bytes_of(std::initializer_list<uint64_t> counts, uint64_t each = 1) {
  uint64_t total = 0;
  for (uint64_t count : counts) {
    if (count > (UINT64_MAX - total) / each) return UINT64_MAX;
    total += count * each;
  }
  return total;
}

uint64_t physical_memory() {
#if defined(_SC_PHYS_PAGES)
  const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && bytes > 0) return static_cast<uint64_t>(pages) * static_cast<uint64_t>(bytes);
#endif
  return UINT64_MAX;
}

void check_host(Isa isa) {
  const std::vector<Isa> available = available_isas();
  if (std::find(available.begin(), available.end(), isa) != available.end()) return;
  throw ProgramError(FASTCNN_WRONG_HOST,
                     std::string("it is for ") + isa_name(isa) + " and this CPU or build has " +
                         isa_name(detect_isa()) +
                         " at best: export it again from the .fcnn file on this machine, or with FASTCNN_ISA=" +
                         isa_name(detect_isa()));
}

// Reads the weights of one step, checks them, and lets the step pack them.
void add_step(Net& net, Source& source, ProgramStep& step) {
  std::vector<Buffer> arrays;
  for (const WeightRef& ref : step.weights) {
    FloatArray& array = step.spec.weights.at(ref.key);
    arrays.emplace_back(array.size);
    const size_t bytes = array.size * sizeof(float);
    source.read(ref.offset, arrays.back().data(), bytes);
    if (crc32(arrays.back().data(), bytes) != ref.crc) {
      bad_program("step " + step.spec.op + ": the checksum of weight '" + ref.key + "' does not match: it is damaged");
    }
    array.data = arrays.back().data();
  }
  try {
    net.add_step(std::move(step.spec));
  } catch (const std::invalid_argument& error) {
    bad_program(error.what());
  } catch (const std::out_of_range& error) {
    bad_program(std::string("a step lacks an attribute: ") + error.what());
  }
}

}  // namespace

LoadedProgram load_program(Source& source, const LoadOptions& options) {
  // No limit allows more than a pointer difference counts: sizes below it cannot wrap around.
  const uint64_t limit =
      std::min<uint64_t>(options.memory_limit != 0 ? options.memory_limit : physical_memory(), PTRDIFF_MAX);
  LoadedProgram loaded{read_program(source, limit), nullptr};
  Program& p = loaded.program;
  check_host(p.isa);
  const Memory memory = validate(p);
  const uint64_t arena = static_cast<uint64_t>(memory.arena_bytes) + kSlack * sizeof(float);
  check_memory(
      bytes_of({static_cast<uint64_t>(memory.weight_bytes), static_cast<uint64_t>(memory.packing_bytes), arena}),
      limit);

  const int threads = options.threads != 0 ? options.threads : std::min(p.threads, cpu_info().logical_cores);
  loaded.net = std::make_unique<Net>(p.isa, threads);
  Net& net = *loaded.net;
  for (ProgramStep& step : p.steps) add_step(net, source, step);
  try {
    net.set_groups(p.groups);
  } catch (const std::invalid_argument& error) {
    bad_program(error.what());
  }
  size_t most = 0;
  for (size_t i = 0; i < net.steps(); ++i) {
    most = std::max({most, net.step(i).scratch_floats(1), net.step(i).scratch_floats(threads)});
  }
  check_memory(bytes_of({net.weight_bytes(), arena, bytes_of({most, net.group_floats()}, sizeof(float))}), limit);
  net.set_arena(static_cast<size_t>(p.arena_floats) + kSlack);
  net.finish();
  p.threads = threads;
  p.steps.clear();
  p.steps.shrink_to_fit();
  return loaded;
}

}  // namespace fastcnn
