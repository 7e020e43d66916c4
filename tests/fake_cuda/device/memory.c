/* Memory of the device and pinned memory of the host: pages of this process, counted against the device's size.

   Each block ends at a forbidden page, so that a copy or a fill that reaches past it crashes instead of going unnoticed. */
#define _GNU_SOURCE
#include "fake_cuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALIGNMENT = 256 };

struct block {
    struct block *next;
    char *at;    /* address that the caller gets */
    void *pages; /* mapped pages */
    size_t size, mapped;
    int host;
};

static struct block *blocks;
static size_t used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

static int take(void **at, size_t size, int host) {
    if (fake_cuda_forbidden(host ? "cudaMallocHost" : "cudaMalloc")) return fake_cuda_fail(CAPTURE_UNSUPPORTED);
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    const size_t want = rounded(size ? size : 1, ALIGNMENT), mapped = rounded(want, PAGE) + PAGE;
    pthread_mutex_lock(&lock);
    const int fits = host || used + want <= fake_cuda_settings()->memory;
    if (fits && !host) used += want;
    pthread_mutex_unlock(&lock);
    char *pages = MAP_FAILED;
    struct block *b = malloc(sizeof *b);
    if (fits) pages = mmap(0, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fake_cuda_trace("MALLOC %d %zu%s", host, size, pages == MAP_FAILED ? " refused" : "");
    if (!b || pages == MAP_FAILED) {
        free(b);
        return fake_cuda_fail(NO_MEMORY);
    }
    mprotect(pages + mapped - PAGE, PAGE, PROT_NONE);
    *b = (struct block){.at = pages + mapped - PAGE - want, .pages = pages, .size = want, .mapped = mapped, .host = host};
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    *at = b->at;
    return OK;
}

static int drop(void *at, const char *what) {
    if (!at) return OK;
    if (fake_cuda_forbidden(what)) return fake_cuda_fail(CAPTURE_UNSUPPORTED);
    struct block *gone = NULL;
    pthread_mutex_lock(&lock);
    for (struct block **b = &blocks; *b; b = &(*b)->next) {
        if ((*b)->at != at) continue;
        gone = *b;
        *b = gone->next;
        if (!gone->host) used -= gone->size;
        break;
    }
    pthread_mutex_unlock(&lock);
    if (!gone) return fake_cuda_fail(INVALID_VALUE);
    fake_cuda_trace("FREE %d %zu", gone->host, gone->size);
    munmap(gone->pages, gone->mapped);
    free(gone);
    return OK;
}

API size_t fake_cuda_used(void) {
    pthread_mutex_lock(&lock);
    const size_t now = used;
    pthread_mutex_unlock(&lock);
    return now;
}

/* The kind of the block that holds an address, or 0; left: its bytes from there on. */
static int find(const void *at, size_t *left) {
    int found = 0; /* 1 pinned, 2 the device's: cudaMemoryTypeHost and cudaMemoryTypeDevice */
    pthread_mutex_lock(&lock);
    for (struct block *b = blocks; b && !found; b = b->next) {
        if ((const char *)at < b->at || (const char *)at >= b->at + b->size) continue;
        found = b->host ? 1 : 2;
        *left = (size_t)(b->at + b->size - (const char *)at);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

int fake_cuda_holds(const void *at, size_t size) {
    size_t left = 0;
    return !size || (find(at, &left) && left >= size); /* also pinned memory, which the device can reach */
}

API int cudaMalloc(void **at, size_t size) { return take(at, size, 0); }
API int cudaMallocHost(void **at, size_t size) { return take(at, size, 1); }
API int cudaHostAlloc(void **at, size_t size, unsigned flags) { return take(at, size, 1); }
API int cudaFree(void *at) { return drop(at, "cudaFree"); }
API int cudaFreeHost(void *at) { return drop(at, "cudaFreeHost"); }

/* Pools: the same memory, without a pool. */
API int cudaMallocFromPoolAsync(void **at, size_t size, void *pool, void *stream) {
    return take(at, size, 0);
}
API int cudaFreeAsync(void *at, void *stream) { return drop(at, "cudaFreeAsync"); }
API int cudaMemPoolCreate(void **pool, const void *properties) { return *pool = malloc(1), OK; }
API int cudaMemPoolDestroy(void *pool) { return free(pool), OK; }
API int cudaMemPoolSetAttribute(void *pool, int name, void *value) { return OK; }
API int cudaMemPoolGetAttribute(void *pool, int name, uint64_t *value) { return *value = 0, OK; }
API int cudaMemPoolTrimTo(void *pool, size_t size) { return OK; }

API int cudaMemGetInfo(size_t *free_now, size_t *total) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    *total = fake_cuda_settings()->memory;
    *free_now = *total - fake_cuda_used();
    return OK;
}

struct pointer { int type, device; void *device_at, *host_at; long reserved[8]; };
_Static_assert(sizeof(struct pointer) == 88, "cudaPointerAttributes of CUDA 13");

API int cudaPointerGetAttributes(struct pointer *a, const void *at) {
    size_t left;
    memset(a, 0, sizeof *a);
    a->type = find(at, &left);
    if (a->type) a->device_at = a->host_at = (void *)at;
    return OK;
}

API int cudaHostRegister(void *at, size_t size, unsigned flags) {
    fake_cuda_trace("REGISTER %zu", size);
    return fake_cuda_forbidden("cudaHostRegister") ? fake_cuda_fail(CAPTURE_UNSUPPORTED) : fake_cuda_ready();
}

API int cudaHostUnregister(void *at) {
    fake_cuda_trace("UNREGISTER");
    return fake_cuda_forbidden("cudaHostUnregister") ? fake_cuda_fail(CAPTURE_UNSUPPORTED) : OK;
}
