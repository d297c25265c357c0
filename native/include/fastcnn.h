/* fastcnn in C: load a program that fastcnn exported, describe it, run it, free it.
 *
 * A program (.fcp) is a planned net for one set of input shapes and one instruction set; `fastcnn export` and
 * CompiledNet.export write it. The file is checked before a byte of it is used: a damaged or hostile one gives a status
 * and a message. Nothing here throws, prints, exits, or keeps state between calls other than sleeping worker threads.
 *
 *     fastcnn_error error;
 *     fastcnn_net* net = NULL;
 *     if (fastcnn_load("net.fcp", NULL, &net, &error) != FASTCNN_OK) { fputs(error.message, stderr); return 1; }
 *     const float* inputs[] = {x};
 *     float* outputs[] = {y};
 *     fastcnn_run(net, inputs, outputs, &error);
 *     fastcnn_free(net);
 *
 * Plain C99; C++ may include it too. Link with -lfastcnn. */
#ifndef FASTCNN_H
#define FASTCNN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(FASTCNN_BUILDING)
#define FASTCNN_API __declspec(dllexport)
#else
#define FASTCNN_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define FASTCNN_API __attribute__((visibility("default")))
#else
#define FASTCNN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fastcnn_net fastcnn_net;

/* What came of a call. Numbers never change their meaning; later versions may add some. */
typedef enum fastcnn_status {
  FASTCNN_OK = 0,
  FASTCNN_INVALID_ARGUMENT = 1, /* a null pointer, an index or an option out of range */
  FASTCNN_CANNOT_READ = 2,      /* the file is not there, or the system gives no bytes of it */
  FASTCNN_BAD_PROGRAM = 3,      /* damaged, cut off, hostile, or of a later version: the message names the field */
  FASTCNN_WRONG_HOST = 4,       /* this CPU or build cannot run the program's instruction set */
  FASTCNN_OUT_OF_MEMORY = 5,    /* the system has not enough, or the program wants more than memory_limit */
  FASTCNN_INTERNAL_ERROR = 6    /* a mistake of fastcnn */
} fastcnn_status;

/* Filled by a call that fails; message is never longer than the array and always ends in a zero. */
typedef struct fastcnn_error {
  char message[512];
} fastcnn_error;

/* Zeroes choose the defaults. struct_size is sizeof(fastcnn_options): it lets later versions add fields. */
typedef struct fastcnn_options {
  size_t struct_size;
  int threads;           /* 1 to 256; 0: those of the program, at most the cores this process may use */
  uint64_t memory_limit; /* bytes for weights, activations and scratch; 0: the memory of the machine */
} fastcnn_options;

#define FASTCNN_OPTIONS_INIT {sizeof(fastcnn_options), 0, 0}

/* One input or output: float32, row-major, rank extents, count floats in all. Belongs to the net. */
typedef struct fastcnn_tensor {
  const char* name;
  size_t rank;
  const int64_t* dims;
  size_t count;
} fastcnn_tensor;

/* The whole net. Strings belong to it. */
typedef struct fastcnn_info {
  const char* made_by; /* version of fastcnn that wrote the program */
  const char* isa;     /* "scalar", "avx2", "avx512", "avx512_vnni", "avx512_amx" */
  int threads;         /* of one run */
  size_t steps;
  double tolerance;       /* largest net error that was allowed */
  double error;           /* net error that was measured at export; NaN where nothing was reordered or measured */
  uint64_t weight_bytes;  /* once */
  uint64_t working_bytes; /* for every run that goes on at the same time: activations and scratch */
} fastcnn_info;

/* Version of this library, "1.2.3". */
FASTCNN_API const char* fastcnn_version(void);

/* A few words for a status. */
FASTCNN_API const char* fastcnn_status_text(fastcnn_status status);

/* Load a program. On success *net is set and is to be freed with fastcnn_free; else *net is NULL. options and error may
 * be NULL. The file is not needed afterwards. */
FASTCNN_API fastcnn_status fastcnn_load(const char* path, const fastcnn_options* options, fastcnn_net** net,
                                        fastcnn_error* error);

/* The same from memory, which is not needed afterwards and may have any alignment. */
FASTCNN_API fastcnn_status fastcnn_load_memory(const void* data, size_t size, const fastcnn_options* options,
                                               fastcnn_net** net, fastcnn_error* error);

/* 0 for NULL. */
FASTCNN_API size_t fastcnn_input_count(const fastcnn_net* net);
FASTCNN_API size_t fastcnn_output_count(const fastcnn_net* net);

FASTCNN_API fastcnn_status fastcnn_describe_input(const fastcnn_net* net, size_t index, fastcnn_tensor* tensor);
FASTCNN_API fastcnn_status fastcnn_describe_output(const fastcnn_net* net, size_t index, fastcnn_tensor* tensor);
FASTCNN_API fastcnn_status fastcnn_describe(const fastcnn_net* net, fastcnn_info* info);

/* One inference. inputs and outputs hold one array for each input and output, of `count` floats; they may not overlap.
 * Thread-safe: any number of threads may run one net at once, each with its own arrays; calls beyond the number of
 * cores wait for a workspace. error may be NULL. */
FASTCNN_API fastcnn_status fastcnn_run(fastcnn_net* net, const float* const* inputs, float* const* outputs,
                                       fastcnn_error* error);

/* NULL is allowed. Not while the net runs. */
FASTCNN_API void fastcnn_free(fastcnn_net* net);

#ifdef __cplusplus
}
#endif

#endif
