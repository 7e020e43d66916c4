/* Kernels that work on one element at a time, of onnxruntime/core/providers/cuda: casts, arithmetic with broadcasting, and the
   filling of a matrix with a bias. Types are parsed from the mangled names. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <math.h>
#include <string.h>

/* ---- values of any type, as double: exact for all that occurs, integers up to 2^53 ---- */
enum type { BOOL = 'b', INT = 'i', LONG = 'l', FLOAT = 'f', HALF = 'h' };

static size_t width(enum type t) { return t == BOOL ? 1 : t == HALF ? 2 : t == LONG ? 8 : 4; }

static double load(enum type t, const void *at, int64_t i) {
    switch (t) {
        case BOOL: return ((const uint8_t *)at)[i] != 0;
        case INT: return ((const int32_t *)at)[i];
        case LONG: return (double)((const int64_t *)at)[i];
        case FLOAT: return ((const float *)at)[i];
        default: return from_half(((const half *)at)[i]);
    }
}

static void store(enum type t, void *at, int64_t i, double value) {
    switch (t) {
        case BOOL: ((uint8_t *)at)[i] = value != 0; break;
        case INT: ((int32_t *)at)[i] = (int32_t)(int64_t)value; break;
        case LONG: ((int64_t *)at)[i] = (int64_t)value; break;
        case FLOAT: ((float *)at)[i] = (float)value; break;
        default: ((half *)at)[i] = to_half((float)value);
    }
}

static const char *after(const char *name, const char *part) { return strstr(name, part) + strlen(part); }

/* The first types of a template's arguments; one that was named before is written as S2_ or the like. */
static void read_types(const char *at, enum type *types, int count) {
    for (int i = 0; i < count; i++) {
        if (!strncmp(at, "6__half", 7)) {
            types[i] = HALF;
            at += 7;
        } else if (*at == 'S') {
            types[i] = HALF; /* the only type in use whose name is long enough to be abbreviated */
            at = strchr(at, '_') + 1;
        } else {
            types[i] = (enum type)*at++;
        }
    }
}

/* ---- one operand ---- */
static void unary(const struct launch *l) {
    enum type types[2];
    read_types(after(l->name, "_UnaryElementWiseI"), types, 2);
    const void *from = ARG(l, 0, const void *);
    void *to = ARG(l, 1, void *);
    const int64_t count = ARG(l, 3, int64_t);
    if (!fake_cuda_reaches(l, from, (size_t)count * width(types[0]))) return;
    if (!fake_cuda_reaches(l, to, (size_t)count * width(types[1]))) return;
    for (int64_t i = 0; i < count; i++) {
        double v = load(types[0], from, i);
        switch (l->kind) {
            case '-': v = -v; break;
            case '!': v = !v; break;
            case 't': v = tanh(v); break;
            case 'r': v = v > 0 ? v : 0; break;
            case 'g': v = 0.5 * v * (1 + erf(v * M_SQRT1_2)); break;
        }
        store(types[1], to, i, v);
    }
}

/* ---- two operands ---- */
static double combine(int kind, double a, double b) {
    switch (kind) {
        case '+': return a + b;
        case '-': return a - b;
        case '*': return a * b;
        default: return a == b;
    }
}

/* At most one operand is a single value. */
static void binary_simple(const struct launch *l) {
    enum type types[3]; /* of the result, of the left and of the right */
    const char *flags = after(l->name, "SimpleILb"); /* 1ELb1E, and the types */
    const int64_t left = flags[0] - '0', right = flags[4] - '0';
    read_types(flags + strlen("1ELb1E"), types, 3);
    const void *a = ARG(l, 0, const void *), *b = ARG(l, 1, const void *);
    void *to = ARG(l, 2, void *);
    const int64_t count = ARG(l, 4, int32_t);
    if (!count || !fake_cuda_reaches(l, a, (size_t)(left ? count : 1) * width(types[1])) ||
        !fake_cuda_reaches(l, b, (size_t)(right ? count : 1) * width(types[2])) ||
        !fake_cuda_reaches(l, to, (size_t)count * width(types[0])))
        return;
    for (int64_t i = 0; i < count; i++)
        store(types[0], to, i, combine(l->kind, load(types[1], a, left * i), load(types[2], b, right * i)));
}

/* The right operand has one value for each channel, of a single image whose rows of `height` share it, or of several. */
static void binary_channel(const struct launch *l) {
    enum type types[3];
    const int several = strstr(l->name, "BatchNI") != NULL;
    read_types(after(l->name, several ? "BatchNI" : "Batch1I"), types, 3);
    const void *a = ARG(l, 0, const void *), *b = ARG(l, 1, const void *);
    const int64_t height = DIVISOR(l, 2), channels = several ? DIVISOR(l, 3) : INT32_MAX;
    void *to = ARG(l, 3 + several, void *);
    const int64_t count = ARG(l, 5 + several, int32_t);
    if (!fake_cuda_reaches(l, a, (size_t)count * width(types[1])) || !fake_cuda_reaches(l, to, (size_t)count * width(types[0])))
        return;
    for (int64_t i = 0; i < count; i++)
        store(types[0], to, i, combine(l->kind, load(types[1], a, i), load(types[2], b, i / height % channels)));
}

/* Any broadcasting: strides of the operands, 0 where they repeat. */
static void binary_broadcast(const struct launch *l) {
    enum type types[3];
    const int flags = l->kind >> 8; /* 1: the left has strides, 2: the right has */
    read_types(after(l->name, "_BinaryElementWiseI"), types, 3);
    const int rank = ARG(l, 0, int32_t);
    const struct numbers *left = l->args[1], *right = l->args[3];
    const struct divisors *sizes = l->args[5];
    const void *a = ARG(l, 2, const void *), *b = ARG(l, 4, const void *);
    void *to = ARG(l, 6, void *);
    const int64_t count = ARG(l, 8, int32_t);
    if (!fake_cuda_reaches(l, to, (size_t)count * width(types[0]))) return;
    for (int64_t i = 0; i < count; i++) {
        int64_t x = 0, y = 0, rest = i;
        for (int d = 0; d < rank; d++) {
            const int64_t step = rest / sizes->at[d].by;
            rest %= sizes->at[d].by;
            x += left->at[d] * step;
            y += right->at[d] * step;
        }
        const double left_value = load(types[1], a, flags & 1 ? x : i), right_value = load(types[2], b, flags & 2 ? y : i);
        store(types[0], to, i, combine(l->kind & 255, left_value, right_value));
    }
}

/* ---- values written everywhere ---- */
static void fill(const struct launch *l) {
    char *to = ARG(l, 0, char *);
    const size_t count = COUNT(l, 2), size = (size_t)l->kind;
    if (!fake_cuda_reaches(l, to, count * size)) return;
    for (size_t i = 0; i < count; i++) memcpy(to + i * size, l->args[1], size);
}

/* A bias, which may be a row, a column or one value, expanded to the matrix that a product is then added to. */
static void broadcast_bias(const struct launch *l) {
    const enum type type = (enum type)l->kind;
    const void *bias = ARG(l, 0, const void *);
    void *to = ARG(l, 1, void *);
    const int64_t count = ARG(l, 2, int64_t), columns = DIVISOR(l, 3);
    const int64_t row_step = ARG(l, 4, int32_t), column_step = ARG(l, 5, int32_t);
    const double scale = strstr(l->name, "Lb1E") ? load(type, l->args[6], 0) : 1;
    if (!fake_cuda_reaches(l, to, (size_t)count * width(type))) return;
    for (int64_t i = 0; i < count; i++)
        store(type, to, i, scale * load(type, bias, i / columns * row_step + i % columns * column_step));
}

#define BINARY(operation, kind)                                                                                                \
    {"_BinaryElementWiseSimpleI*" operation "*ELi4EiEE", "pppei", binary_simple, kind},                                        \
    {"_BinaryElementWiseRhsPerChannelBatch1I*" operation "*ELi4EiEE", "ppDpei", binary_channel, kind},                         \
    {"_BinaryElementWiseRhsPerChannelBatchNI*" operation "*ELi4EiEE", "ppDDpei", binary_channel, kind},                        \
    {"_BinaryElementWiseI*" operation "*ELb1ELb1E*ELi4EiEE", "iApApBppi", binary_broadcast, kind | 3 << 8},                    \
    {"_BinaryElementWiseI*" operation "*ELb1ELb0E*ELi4EiEE", "iApApBppi", binary_broadcast, kind | 1 << 8},                    \
    {"_BinaryElementWiseI*" operation "*ELb0ELb1E*ELi4EiEE", "iApApBppi", binary_broadcast, kind | 2 << 8}

const struct emulated elementwise_kernels[] = {
    {"_UnaryElementWiseI*7OP_CastI", "ppel", unary, 0},
    {"_UnaryElementWiseI*6OP_NegI", "ppel", unary, '-'},
    {"_UnaryElementWiseIbbNS0_6OP_NotI", "ppel", unary, '!'},
    {"_UnaryElementWiseI*7OP_TanhI", "ppel", unary, 't'},
    {"_UnaryElementWiseI*7OP_ReluI", "ppel", unary, 'r'},
    {"_UnaryElementWiseI*7OP_GeluI", "ppel", unary, 'g'},
    BINARY("6OP_AddI", '+'),
    BINARY("6OP_SubI", '-'),
    BINARY("6OP_MulI", '*'),
    BINARY("8OP_EqualI", '='),
    {"_FillIiLi", "pii", fill, 4},
    {"_FillIfLi", "pfi", fill, 4},
    {"_FillI6__halfLi", "phi", fill, 2},
    {"BroadcastBiasKernelI6__halfi", "pplDiih", broadcast_bias, HALF},
    {"BroadcastBiasKernelIfi", "pplDiif", broadcast_bias, FLOAT},
    {0},
};
