/* Kernels: the provider registers their names and launches them by the address of a host function. Here the name leads to a
   function that computes the same on the host. */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the tables ---- */
enum { MOST_PARAMETERS = 24 };

/* A launch passes only the addresses of its arguments; the bytes that a capture has to copy of each: */
static size_t size_of(char letter) {
    switch (letter) {
        case 'p': return sizeof(void *);
        case 'l': return sizeof(int64_t);
        case 'i': return sizeof(int32_t);
        case 'f': return sizeof(float);
        case 'b': return sizeof(char);
        case 'h': return 2; /* float16 */
        case 'v': return 4; /* two of them */
        case 'e': return 1; /* an empty object that stands for a function */
        case 'D': return 12; /* a divisor with its factors */
        case 'S': return 40; /* up to 4 numbers or addresses of 8 bytes, after their count */
        case 'A': return 72; /* up to 8 numbers of 8 bytes, after their count */
        case 'B': return 100; /* up to 8 divisors, after their count */
        case 'C': return 264; /* up to 32 numbers or addresses of 8 bytes */
        case 'E': return 132; /* up to 32 numbers of 4 bytes */
        case 'F': return 388; /* up to 32 divisors */
        case 'R': return 536; /* kernels_shape.c: struct reduction */
        case 'M': return 232; /* kernels_attention.c: struct efficient */
        case 'T': return 96; /* kernels_attention.c: struct fused */
        case 'W': return 424; /* kernels_flash.c: struct flash */
        default: abort();
    }
}

/* Whether a pattern matches from here on: a star is any characters, a question mark is one, a dollar is the end. */
static int fits(const char *name, const char *pattern) {
    for (; *pattern; name++, pattern++) {
        if (*pattern == '$') return !*name;
        if (*pattern == '*') {
            do if (fits(name, pattern + 1)) return 1;
            while (*name++);
            return 0;
        }
        if (!*name || (*pattern != '?' && *pattern != *name)) return 0;
    }
    return 1;
}

static int holds(const char *name, const char *pattern) {
    for (; *name; name++) if (fits(name, pattern)) return 1;
    return 0;
}

static const struct emulated *find(const char *name) {
    static const struct emulated *const tables[] = {elementwise_kernels, shape_kernels, bert_kernels, transpose_kernels,
                                                    packed_kernels, attention_kernels, flash_kernels};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct emulated *e = tables[t]; e->name; e++) if (holds(name, e->name)) return e;
    return NULL;
}

/* ---- a launch ---- */
struct stored {
    const struct emulated *what;
    const char *name;
    struct dim grid, block;
    size_t offsets[MOST_PARAMETERS];
    char values[2048] __attribute__((aligned(16)));
};

static void compute(void *payload) {
    struct stored *p = payload;
    void *args[MOST_PARAMETERS];
    for (size_t i = 0; p->what->parameters[i]; i++) args[i] = p->values + p->offsets[i];
    p->what->compute(&(struct launch){p->name, p->grid, p->block, args, p->what->kind});
}

API int fake_cuda_launch(const char *name, struct dim grid, struct dim block, void **args, void *stream) {
    const struct settings *s = fake_cuda_settings();
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    fake_cuda_trace("KERNEL %s grid %u %u %u block %u %u %u%s", name, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                  fake_cuda_suffix(stream));
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z || block.x * block.y * block.z > 1024)
        return fake_cuda_fail(9); /* cudaErrorInvalidConfiguration */
    if (!s->compute) return OK;
    const struct emulated *what = find(name);
    if (!what) {
        fake_cuda_alarm("UNKNOWN KERNEL %s: not emulated", name);
        return s->strict ? fake_cuda_fail(LAUNCH_FAILURE) : OK;
    }
    struct stored p = {.what = what, .name = name, .grid = grid, .block = block};
    size_t at = 0;
    for (size_t i = 0; what->parameters[i]; i++) {
        p.offsets[i] = at;
        memcpy(p.values + at, args[i], size_of(what->parameters[i]));
        at = (at + size_of(what->parameters[i]) + 15) / 16 * 16;
    }
    return fake_cuda_enqueue(stream, compute, &p, offsetof(struct stored, values) + at);
}

int fake_cuda_reaches(const struct launch *l, const void *at, size_t size) {
    if (fake_cuda_holds(at, size)) return 1;
    fake_cuda_alarm("FAULT %s reaches %zu bytes from %p on, outside the device's memory", l->name, size, at);
    fake_cuda_fail(ILLEGAL_ADDRESS);
    return 0;
}

/* ---- one thread for each processor ---- */
struct share {
    size_t next, count;
    void (*body)(void *, size_t);
    void *context;
};

static void *work_off(void *data) {
    struct share *s = data;
    for (size_t i; (i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->count;) s->body(s->context, i);
    return NULL;
}

API void fake_cuda_in_parallel(size_t count, void (*body)(void *, size_t), void *context) {
    enum { MOST = 16 };
    struct share s = {0, count, body, context};
    pthread_t threads[MOST];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t started = 0;
    while (started + 1 < count && (long)started + 1 < processors && started < MOST)
        if (pthread_create(&threads[started], NULL, work_off, &s)) break;
        else started++;
    work_off(&s);
    while (started) pthread_join(threads[--started], NULL);
}

/* ---- calls of the code that nvcc generates: registration when the provider is loaded, and launches ---- */
struct kernel { struct kernel *next; const void *host; const char *name; };
enum { SLOTS = 1 << 16 };
static struct kernel *kernels[SLOTS];
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

static size_t slot(const void *host) { return (uintptr_t)host >> 4 & (SLOTS - 1); }

API void __cudaRegisterFunction(void **module, const char *host, char *device, const char *name, int limit, void *a, void *b,
                                void *c, void *d, int *size) {
    (void)module, (void)device, (void)limit, (void)a, (void)b, (void)c, (void)d, (void)size;
    struct kernel *k = malloc(sizeof *k);
    if (!k) abort();
    pthread_mutex_lock(&registering);
    *k = (struct kernel){kernels[slot(host)], host, name};
    kernels[slot(host)] = k;
    pthread_mutex_unlock(&registering);
}
API void **__cudaRegisterFatBinary(void *code) {
    static void *module;
    return (void)code, &module;
}
API void __cudaRegisterFatBinaryEnd(void **module) { (void)module; }
API void __cudaUnregisterFatBinary(void **module) { (void)module; }
API void __cudaRegisterVar(void **module, char *host, char *device, const char *name, int e, size_t size, int c, int g) {
    (void)module, (void)host, (void)device, (void)name, (void)e, (void)size, (void)c, (void)g;
}

static __thread struct { struct dim grid, block; size_t shared; void *stream; } pushed;
API unsigned __cudaPushCallConfiguration(struct dim grid, struct dim block, size_t shared, void *stream) {
    pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
    return 0;
}
API int __cudaPopCallConfiguration(struct dim *grid, struct dim *block, size_t *shared, void **stream) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
    return OK;
}

static int launch(const void *host, struct dim grid, struct dim block, void **args, void *stream) {
    for (const struct kernel *k = kernels[slot(host)]; k; k = k->next)
        if (k->host == host) return fake_cuda_launch(k->name, grid, block, args, stream);
    return fake_cuda_fail(NO_KERNEL);
}
API int cudaLaunchKernel(const void *host, struct dim grid, struct dim block, void **args, size_t shared, void *stream) {
    return (void)shared, launch(host, grid, block, args, stream);
}
API int cudaLaunchCooperativeKernel(const void *host, struct dim grid, struct dim block, void **args, size_t shared,
                                    void *stream) {
    return cudaLaunchKernel(host, grid, block, args, shared, stream);
}
API int __cudaGetKernel(const void **kernel, const void *host) { return *kernel = host, OK; }
API int __cudaLaunchKernel(const void *kernel, struct dim grid, struct dim block, void **args, size_t shared, void *stream) {
    return cudaLaunchKernel(kernel, grid, block, args, shared, stream);
}
struct configuration { struct dim grid, block; size_t shared; void *stream, *attributes; unsigned count; };
API int cudaLaunchKernelExC(const struct configuration *c, const void *host, void **args) {
    return launch(host, c->grid, c->block, args, c->stream);
}
API int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    if (fake_cuda_capturing(stream)) return fake_cuda_fail(NOT_SUPPORTED);
    function(data);
    return OK;
}

/* Kernels of libraries that are loaded at run time: not used here. */
API int cudaLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
    (void)code, (void)a, (void)b, (void)n, (void)c, (void)d, (void)m;
    return *library = malloc(1), OK;
}
API int cudaLibraryGetKernel(void **kernel, void *library, const char *name) {
    (void)library;
    fake_cuda_trace("LIBRARYKERNEL %s", name);
    return *kernel = NULL, fake_cuda_fail(NOT_FOUND);
}
API int cudaLibraryUnload(void *library) { return free(library), OK; }
