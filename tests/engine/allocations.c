/* Counts every heap allocation of the process: preloaded by test_runtime.py. */
#include <stdatomic.h>
#include <stddef.h>

static atomic_ulong count;
unsigned long fastcnn_test_allocations(void) { return atomic_load(&count); }


extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

void* malloc(size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_malloc(n);
}
void* calloc(size_t a, size_t b) {
  atomic_fetch_add(&count, 1);
  return __libc_calloc(a, b);
}
void* realloc(void* p, size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_realloc(p, n);
}
void* memalign(size_t a, size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_memalign(a, n);
}
void* aligned_alloc(size_t a, size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_memalign(a, n);
}
int posix_memalign(void** p, size_t a, size_t n) {
  atomic_fetch_add(&count, 1);
  *p = __libc_memalign(a, n);
  return *p == NULL ? 12 : 0;
}
