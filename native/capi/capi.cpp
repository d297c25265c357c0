// The C boundary: arguments are checked, exceptions become a status and a message.
#include <cstring>
#include <exception>
#include <new>

#include "capi/load.h"
#include "fastcnn.h"

struct fastcnn_net {
  fastcnn::LoadedProgram loaded;
};

namespace {

using fastcnn::ProgramError;

fastcnn_status failed(fastcnn_status status, const char* message, fastcnn_error* error) noexcept {
  if (error == nullptr) return status;
  constexpr size_t kRoom = sizeof error->message;
  size_t length = std::strlen(message);
  if (length >= kRoom) {
    // Cut before a character, not within one: bytes 10xxxxxx continue it.
    for (length = kRoom - 1; length > 0 && (static_cast<unsigned char>(message[length]) & 0xc0) == 0x80;) --length;
  }
  std::memcpy(error->message, message, length);
  error->message[length] = '\0';
  return status;
}

// Runs f, which may throw anything.
template <class F>
fastcnn_status guarded(fastcnn_error* error, F&& f) noexcept {
  if (error != nullptr) error->message[0] = '\0';
  try {
    f();
    return FASTCNN_OK;
  } catch (const ProgramError& e) {
    return failed(e.status(), e.what(), error);
  } catch (const std::bad_alloc&) {
    return failed(FASTCNN_OUT_OF_MEMORY, "the system has no memory left for this net", error);
  } catch (const std::exception& e) {
    return failed(FASTCNN_INTERNAL_ERROR, e.what(), error);
  } catch (...) {
    return failed(FASTCNN_INTERNAL_ERROR, "unknown error", error);
  }
}

[[noreturn]] void invalid(const std::string& message) { throw ProgramError(FASTCNN_INVALID_ARGUMENT, message); }

fastcnn::LoadOptions read_options(const fastcnn_options* given) {
  fastcnn::LoadOptions options;
  if (given == nullptr) return options;
  if (given->struct_size != sizeof(fastcnn_options)) {
    invalid("options.struct_size must be sizeof(fastcnn_options): begin with FASTCNN_OPTIONS_INIT");
  }
  if (given->threads < 0 || given->threads > 256) {
    invalid("options.threads=" + std::to_string(given->threads) + " is out of range: choose 1 to 256, or 0");
  }
  options.threads = given->threads;
  options.memory_limit = given->memory_limit;
  return options;
}

fastcnn_status describe(const std::vector<fastcnn::ExternalTensor>& all, size_t index, fastcnn_tensor* tensor) {
  if (tensor == nullptr || index >= all.size()) return FASTCNN_INVALID_ARGUMENT;
  const fastcnn::ExternalTensor& t = all[index];
  *tensor = {t.name.c_str(), t.dims.size(), t.dims.data(), t.count};
  return FASTCNN_OK;
}

template <class Pointer>
void check_arrays(const Pointer* arrays, size_t count, const char* what) {
  if (count == 0) return;
  if (arrays == nullptr) invalid(std::string(what) + " is NULL");
  for (size_t i = 0; i < count; ++i) {
    if (arrays[i] == nullptr) invalid(std::string(what) + "[" + std::to_string(i) + "] is NULL");
  }
}

}  // namespace

const char* fastcnn_version(void) { return FASTCNN_VERSION_TEXT; }

const char* fastcnn_status_text(fastcnn_status status) {
  switch (status) {
    case FASTCNN_OK:
      return "done";
    case FASTCNN_INVALID_ARGUMENT:
      return "invalid argument";
    case FASTCNN_CANNOT_READ:
      return "cannot read the file";
    case FASTCNN_BAD_PROGRAM:
      return "not a valid fastcnn program";
    case FASTCNN_WRONG_HOST:
      return "the program is for another CPU";
    case FASTCNN_OUT_OF_MEMORY:
      return "out of memory";
    case FASTCNN_INTERNAL_ERROR:
      return "internal error";
  }
  return "unknown status";
}

fastcnn_status fastcnn_load(const char* path, const fastcnn_options* options, fastcnn_net** net, fastcnn_error* error) {
  return guarded(error, [&] {
    if (net == nullptr) invalid("net is NULL");
    *net = nullptr;
    if (path == nullptr) invalid("path is NULL");
    const fastcnn::LoadOptions wanted = read_options(options);
    try {
      fastcnn::FileSource source(path);
      *net = new fastcnn_net{fastcnn::load_program(source, wanted)};
    } catch (const ProgramError& e) {
      throw ProgramError(e.status(), std::string(path) + ": " + e.what());
    }
  });
}

fastcnn_status fastcnn_load_memory(const void* data, size_t size, const fastcnn_options* options, fastcnn_net** net,
                                   fastcnn_error* error) {
  return guarded(error, [&] {
    if (net == nullptr) invalid("net is NULL");
    *net = nullptr;
    if (data == nullptr) invalid("data is NULL");
    fastcnn::MemorySource source(data, size);
    *net = new fastcnn_net{fastcnn::load_program(source, read_options(options))};
  });
}

size_t fastcnn_input_count(const fastcnn_net* net) { return net == nullptr ? 0 : net->loaded.program.inputs.size(); }
size_t fastcnn_output_count(const fastcnn_net* net) { return net == nullptr ? 0 : net->loaded.program.outputs.size(); }

fastcnn_status fastcnn_describe_input(const fastcnn_net* net, size_t index, fastcnn_tensor* tensor) {
  return net == nullptr ? FASTCNN_INVALID_ARGUMENT : describe(net->loaded.program.inputs, index, tensor);
}

fastcnn_status fastcnn_describe_output(const fastcnn_net* net, size_t index, fastcnn_tensor* tensor) {
  return net == nullptr ? FASTCNN_INVALID_ARGUMENT : describe(net->loaded.program.outputs, index, tensor);
}

fastcnn_status fastcnn_describe(const fastcnn_net* net, fastcnn_info* info) {
  if (net == nullptr || info == nullptr) return FASTCNN_INVALID_ARGUMENT;
  const fastcnn::Program& p = net->loaded.program;
  const fastcnn::Net& n = *net->loaded.net;
  info->made_by = p.made_by.c_str();
  info->isa = fastcnn::isa_name(p.isa);
  info->threads = n.threads();
  info->steps = n.steps();
  info->tolerance = p.tolerance;
  info->error = p.error;
  info->weight_bytes = n.weight_bytes();
  info->working_bytes = (n.arena_floats() + n.scratch_floats() + n.group_floats()) * sizeof(float);
  return FASTCNN_OK;
}

fastcnn_status fastcnn_run(fastcnn_net* net, const float* const* inputs, float* const* outputs, fastcnn_error* error) {
  return guarded(error, [&] {
    if (net == nullptr) invalid("net is NULL");
    check_arrays(inputs, net->loaded.program.inputs.size(), "inputs");
    check_arrays(outputs, net->loaded.program.outputs.size(), "outputs");
    net->loaded.net->run(inputs, outputs);
  });
}

void fastcnn_free(fastcnn_net* net) { delete net; }
