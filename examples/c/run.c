/* Run a net from C: no Python, no C++ in sight.
 *
 *     fastcnn compile mynet:Net --out net.fcnn && fastcnn export net.fcnn --out net.fcp
 *     cc -std=c99 -O2 run.c $(fastcnn export --c-flags) -o run
 *     ./run net.fcp x.f32 --out y
 *
 * Inputs are files of raw float32 numbers, one for each input of the net; without them all inputs are zero. Outputs go
 * to y.0.f32, y.1.f32 ... if --out is given. What the net is, and the five largest values of its first output, are
 * printed. */
#include <fastcnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char* what, const char* why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  return 1;
}

static void print_tensor(const char* kind, const fastcnn_tensor* t) {
  printf("%s %s:", kind, t->name);
  for (size_t i = 0; i < t->rank; ++i) printf(" %lld", (long long)t->dims[i]);
  printf("\n");
}

static int read_floats(const char* path, float* to, size_t count) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return fail(path, "cannot be opened");
  const size_t got = fread(to, sizeof(float), count, file);
  const int more = fgetc(file) != EOF;
  fclose(file);
  return got == count && !more ? 0 : fail(path, "does not hold as many float32 numbers as the input has");
}

static int write_floats(const char* prefix, size_t index, const float* from, size_t count) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s.%zu.f32", prefix, index) >= (int)sizeof path) return fail(prefix, "too long");
  FILE* file = fopen(path, "wb");
  if (file == NULL) return fail(path, "cannot be opened");
  const size_t put = fwrite(from, sizeof(float), count, file);
  return fclose(file) == 0 && put == count ? 0 : fail(path, "cannot be written");
}

static void print_largest(const float* y, size_t count) {
  size_t shown[5];
  for (size_t n = 0; n < 5 && n < count; ++n) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i) {
      int used = 0;
      for (size_t k = 0; k < n; ++k) used |= shown[k] == i;
      if (!used && (best == count || y[i] > y[best])) best = i;
    }
    shown[n] = best;
    printf("%zu: %.9g\n", best, (double)y[best]);
  }
}

/* Arrays for every input or output; all zero. */
static float** make_arrays(const fastcnn_net* net, size_t count, int outputs) {
  float** arrays = calloc(count + 1, sizeof(float*));
  for (size_t i = 0; arrays != NULL && i < count; ++i) {
    fastcnn_tensor t;
    if (outputs) {
      fastcnn_describe_output(net, i, &t);
    } else {
      fastcnn_describe_input(net, i, &t);
    }
    print_tensor(outputs ? "output" : "input", &t);
    arrays[i] = calloc(t.count, sizeof(float));
    if (arrays[i] == NULL) return NULL;
  }
  return arrays;
}

int main(int argc, char** argv) {
  const char *program = NULL, *prefix = NULL;
  const char* files[64];
  size_t given = 0;
  fastcnn_options options = FASTCNN_OPTIONS_INIT;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--out") == 0 && i + 1 < argc) {
      prefix = argv[++i];
    } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      options.threads = atoi(argv[++i]);
    } else if (program == NULL) {
      program = argv[i];
    } else if (given < 64) {
      files[given++] = argv[i];
    }
  }
  if (program == NULL) return fail("usage", "run FILE.fcp [INPUT.f32 ...] [--threads N] [--out PREFIX]");

  fastcnn_error error;
  fastcnn_net* net = NULL;
  fastcnn_status status = fastcnn_load(program, &options, &net, &error);
  if (status != FASTCNN_OK) {
    fprintf(stderr, "error: %s\n", error.message);
    return 1 + (int)status;
  }
  fastcnn_info info;
  fastcnn_describe(net, &info);
  printf("fastcnn %s: %s, %d thread(s), %zu steps", fastcnn_version(), info.isa, info.threads, info.steps);
  if (info.error == info.error) printf(", error %.1e of %.1e", info.error, info.tolerance);
  printf("\n");

  const size_t inputs = fastcnn_input_count(net), outputs = fastcnn_output_count(net);
  float** x = make_arrays(net, inputs, 0);
  float** y = make_arrays(net, outputs, 1);
  if (x == NULL || y == NULL) return fail(program, "out of memory");
  if (given != 0 && given != inputs) return fail(program, "give one file for each input, or none");
  for (size_t i = 0; i < given; ++i) {
    fastcnn_tensor t;
    fastcnn_describe_input(net, i, &t);
    if (read_floats(files[i], x[i], t.count) != 0) return 1;
  }

  status = fastcnn_run(net, (const float* const*)x, y, &error);
  if (status != FASTCNN_OK) return fail(program, error.message);

  int failed = 0;
  for (size_t i = 0; i < outputs; ++i) {
    fastcnn_tensor t;
    fastcnn_describe_output(net, i, &t);
    if (i == 0) print_largest(y[i], t.count);
    if (prefix != NULL) failed |= write_floats(prefix, i, y[i], t.count);
    free(y[i]);
  }
  for (size_t i = 0; i < inputs; ++i) free(x[i]);
  free(x);
  free(y);
  fastcnn_free(net);
  return failed;
}
