/* Declarations that the parts of the fake CUDA libraries share. README.md explains what is real and what is fake.

   Names and numbers are those of CUDA's documentation; its headers are not needed to build. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define API __attribute__((visibility("default")))

/* cudaError_t: the values that can occur here. */
enum {
    OK = 0,
    INVALID_VALUE = 1,
    NO_MEMORY = 2,
    OLD_DRIVER = 35,
    NO_KERNEL = 98,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    NOT_FOUND = 500,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
};

struct dim { unsigned x, y, z; };

/* ---- settings.c: the environment's switches, read once; the trace. ---- */
struct settings {
    int capability; /* FAKE_CUDA_CAPABILITY: compute capability times ten */
    int devices;    /* FAKE_CUDA_DEVICES */
    int old_driver; /* FAKE_CUDA_DRIVER_TOO_OLD */
    size_t memory;  /* FAKE_CUDA_MEMORY: bytes of the device */
};
const struct settings *fake_cuda_settings(void);
void fake_cuda_trace(const char *format, ...) __attribute__((format(printf, 1, 2))); /* one line of the trace */
void fake_cuda_alarm(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the same, and on stderr */
int fake_cuda_fail(int code); /* sets the next result of cudaGetLastError */
int fake_cuda_ready(void);    /* OK, or the reason why no call works: no device, or an old driver */

/* ---- memory.c ---- */
int fake_cuda_holds(const void *at, size_t size); /* whether a block of the device's memory holds all of it */
size_t fake_cuda_used(void);

/* ---- graphs.c: work runs at once or is stored for a replay. ---- */
typedef void work(void *payload);
int fake_cuda_enqueue(void *stream, work *run, const void *payload, size_t size);
int fake_cuda_compute_nothing(void *stream); /* in a kernel's place; fails where a launch would */
int fake_cuda_capturing(void *stream);       /* whether this stream captures */
const char *fake_cuda_suffix(void *stream);  /* " captured" for the trace, or nothing */
int fake_cuda_forbidden(const char *what);   /* spoils all captures in progress; returns whether there was one */

/* ---- launch.c ---- */
int fake_cuda_launch(const char *name, struct dim grid, struct dim block, void *stream);

/* Calls that the provider links and that need no more than this. Success is 0 in each of CUDA's libraries. */
#define CREATES(name) API int name(void **made) { return *made = calloc(1, 64), 0; }
#define DESTROYS(name) API int name(void *made) { return free(made), 0; }
#define SUCCEEDS(name) API int name(void) { return 0; }
#define NOT_EMULATED(name, status)                         \
    API int name(void) {                                   \
        fake_cuda_alarm("UNKNOWN " #name ": not emulated"); \
        return status;                                     \
    }
