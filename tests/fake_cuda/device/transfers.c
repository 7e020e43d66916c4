/* Copies and fills. Asynchronous ones are captured like kernels: a replay reads the host's memory again, from the same
   address. */
#include "fake_cuda.h"

#include <string.h>

struct copy {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, rows;
};

static void copy(void *payload) {
    const struct copy *c = payload;
    for (size_t i = 0; i < c->rows; i++) memmove(c->to + i * c->to_pitch, c->from + i * c->from_pitch, c->width);
}

struct fill { void *at; int value; size_t size; };

static void fill(void *payload) {
    const struct fill *f = payload;
    memset(f->at, f->value, f->size);
}

/* Kind: 0 host to host, 1 host to device, 2 device to host, 3 device to device, 4 by the addresses. */
static int misplaced(const void *to, const void *from, size_t size, int kind) {
    const int fits = (kind == 0 || kind == 2 || kind == 4 || fake_cuda_holds(to, size)) &&
                     (kind == 0 || kind == 1 || kind == 4 || fake_cuda_holds(from, size));
    if (!fits) fake_cuda_alarm("FAULT a copy of %zu bytes, kind %d, reaches outside the device's memory", size, kind);
    return !fits;
}

API int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    if (fake_cuda_forbidden("cudaMemcpy")) return fake_cuda_fail(CAPTURE_IMPLICIT);
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    fake_cuda_trace("COPY %d %zu", kind, size);
    if (misplaced(to, from, size, kind)) return fake_cuda_fail(INVALID_VALUE);
    memmove(to, from, size);
    return OK;
}

API int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    fake_cuda_trace("COPYASYNC %d %zu%s", kind, size, fake_cuda_suffix(stream));
    if (misplaced(to, from, size, kind)) return fake_cuda_fail(INVALID_VALUE);
    return fake_cuda_enqueue(stream, copy, &(struct copy){to, from, 0, 0, size, 1}, sizeof(struct copy));
}

API int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, int kind,
                          void *stream) {
    fake_cuda_trace("COPYASYNC %d %zu%s", kind, width * rows, fake_cuda_suffix(stream));
    return fake_cuda_enqueue(stream, copy, &(struct copy){to, from, to_pitch, from_pitch, width, rows}, sizeof(struct copy));
}

API int cudaMemset(void *at, int value, size_t size) {
    if (fake_cuda_forbidden("cudaMemset")) return fake_cuda_fail(CAPTURE_IMPLICIT);
    memset(at, value, size);
    return fake_cuda_ready();
}

API int cudaMemsetAsync(void *at, int value, size_t size, void *stream) {
    fake_cuda_trace("MEMSET %zu%s", size, fake_cuda_suffix(stream));
    return fake_cuda_enqueue(stream, fill, &(struct fill){at, value, size}, sizeof(struct fill));
}
