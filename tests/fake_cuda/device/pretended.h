/* What the parts of the pretended CUDA libraries share. What this is, and what it cannot judge: __init__.py.

   The names and numbers of CUDA's interface are CUDA's (its documentation); nothing of its headers is needed to build. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

/* cudaError_t, as far as it can occur here. */
enum {
    OK = 0,
    INVALID_VALUE = 1,
    NO_MEMORY = 2,
    OLD_DRIVER = 35,
    NO_KERNEL = 98,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILURE = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
};

struct dim { unsigned x, y, z; };

/* ---- settings.c: the environment's switches, read once; the trace. ---- */
struct settings {
    int compute;       /* PRETEND_COMPUTE: whether kernels compute, or are only told of */
    int strict;        /* PRETEND_STRICT: whether a kernel that nobody emulates fails */
    int wrong;         /* PRETEND_WRONG: whether matrix products come out 5 % too large */
    int capability;    /* PRETEND_CAPABILITY: compute capability times ten */
    int devices;       /* PRETEND_DEVICES */
    int old_driver;    /* PRETEND_DRIVER_TOO_OLD */
    size_t memory;     /* PRETEND_MEMORY: bytes of the device */
};
const struct settings *pretended_settings(void);
void pretended_say(const char *format, ...) __attribute__((format(printf, 1, 2)));   /* one line of the trace */
void pretended_alarm(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the same, and on stderr */
int pretended_fail(int code);                                                        /* what cudaGetLastError gives next */
int pretended_ready(void);   /* OK, or why no call can work: no device, an old driver, an earlier fault */

/* ---- memory.c ---- */
int pretended_holds(const void *at, size_t size); /* whether a block of the device's memory holds all of it */
size_t pretended_used(void);

/* ---- graphs.c: work either runs at once or is kept for a replay. ---- */
typedef void work(void *payload);
int pretended_enqueue(void *stream, work *run, const void *payload, size_t size);
int pretended_capturing(void *stream);           /* whether this stream captures */
const char *pretended_suffix(void *stream);      /* " captured" for the trace, or nothing */
int pretended_forbidden(const char *what);       /* spoils every capture under way; whether there was one */

/* ---- launch.c: from the name of a kernel to what computes it. ---- */
struct launch {
    const char *name;
    struct dim grid, block;
    void **args;
    int kind; /* of the table's entry: an element's size, or one of the types below */
};
typedef void emulation(const struct launch *);
struct emulated {
    const char *name;       /* a pattern that is found in the mangled name, see launch.c */
    const char *parameters; /* one letter each, see launch.c: how much a capture has to copy */
    emulation *compute;
    int kind;
};
extern const struct emulated elementwise_kernels[], shape_kernels[], bert_kernels[], transpose_kernels[], packed_kernels[];
extern const struct emulated attention_kernels[], flash_kernels[];
int pretended_launch(const char *name, struct dim grid, struct dim block, void **args, void *stream);

/* Argument i of a launch, and whether the device's memory holds what a kernel is about to touch; a fault is told and sticks. */
#define ARG(l, i, type) (*(type *)(l)->args[i])
#define COUNT(l, i) ((size_t)ARG(l, i, int32_t))   /* a size that the kernel takes as an int */
#define DIVISOR(l, i) ((int64_t)ARG(l, i, uint32_t)) /* one that it takes as a divisor, see below */
int pretended_reaches(const struct launch *l, const void *at, size_t size);

/* Structures that the provider passes by value. A divisor comes with what makes a multiplication of its division. */
struct divisor { uint32_t by, multiplier, shift; };
struct numbers { int32_t count; int64_t at[8]; };
struct divisors { int32_t count; struct divisor at[8]; };

/* Runs body(context, i) for every i below count, on as many threads as there are processors. */
void pretended_in_parallel(size_t count, void (*body)(void *context, size_t i), void *context);
