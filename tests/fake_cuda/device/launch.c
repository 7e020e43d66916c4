/* Kernels: the provider registers their names, and launches them by the address of a host function. A launch leaves its name in
   the trace; nothing is computed. */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdlib.h>

API int fake_cuda_launch(const char *name, struct dim grid, struct dim block, void *stream) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    fake_cuda_trace("KERNEL %s grid %u %u %u block %u %u %u%s", name, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                    fake_cuda_suffix(stream));
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z || block.x * block.y * block.z > 1024)
        return fake_cuda_fail(9); /* cudaErrorInvalidConfiguration */
    return fake_cuda_compute_nothing(stream);
}

/* ---- calls of the code that nvcc generates: registration when the provider is loaded, and launches ---- */
struct kernel { struct kernel *next; const void *host; const char *name; };
enum { SLOTS = 1 << 16 };
static struct kernel *kernels[SLOTS];
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

static size_t slot(const void *host) { return (uintptr_t)host >> 4 & (SLOTS - 1); }

API void __cudaRegisterFunction(void **module, const char *host, char *device, const char *name, int limit, void *a, void *b,
                                void *c, void *d, int *size) {
    struct kernel *k = malloc(sizeof *k);
    if (!k) abort();
    pthread_mutex_lock(&registering);
    *k = (struct kernel){kernels[slot(host)], host, name};
    kernels[slot(host)] = k;
    pthread_mutex_unlock(&registering);
}
API void **__cudaRegisterFatBinary(void *code) {
    static void *module;
    return &module;
}
API void __cudaRegisterFatBinaryEnd(void **module) {}
API void __cudaUnregisterFatBinary(void **module) {}
API void __cudaRegisterVar(void **module, char *host, char *device, const char *name, int e, size_t size, int c, int g) {
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

static int launch(const void *host, struct dim grid, struct dim block, void *stream) {
    for (const struct kernel *k = kernels[slot(host)]; k; k = k->next)
        if (k->host == host) return fake_cuda_launch(k->name, grid, block, stream);
    return fake_cuda_fail(NO_KERNEL);
}
API int cudaLaunchKernel(const void *host, struct dim grid, struct dim block, void **args, size_t shared, void *stream) {
    return launch(host, grid, block, stream);
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
    return launch(host, c->grid, c->block, c->stream);
}
API int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    if (fake_cuda_capturing(stream)) return fake_cuda_fail(NOT_SUPPORTED);
    function(data);
    return OK;
}

/* Kernels of libraries that are loaded at run time: not used here. */
API int cudaLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
    return *library = malloc(1), OK;
}
API int cudaLibraryGetKernel(void **kernel, void *library, const char *name) {
    fake_cuda_trace("LIBRARYKERNEL %s", name);
    return *kernel = NULL, fake_cuda_fail(NOT_FOUND);
}
API int cudaLibraryUnload(void *library) { return free(library), OK; }
