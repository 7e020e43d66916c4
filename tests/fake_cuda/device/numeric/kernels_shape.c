/* Kernels of onnxruntime/core/providers/cuda/tensor that move elements of any type, and sums over integers, with which the
   graphs count tokens. */
#include "../runtime/fake_cuda.h"

#include <string.h>

struct addresses { int32_t count; const char *at[32]; };
struct offsets { int32_t count; int64_t at[32]; };
struct counts { int32_t count, at[32]; };
struct pitches { int32_t count; struct divisor at[32]; };
struct few_addresses { int32_t count; char *at[4]; };
struct few_numbers { int32_t count; int64_t at[4]; };

/* ---- Concat: rows of `pitch` elements in the result, with a piece of every input ---- */

/* Inputs of any size along the axis, their ends given. */
static void concat_output_major(const struct launch *l) {
    const int64_t row = DIVISOR(l, 0), inside = DIVISOR(l, 1);
    const struct offsets *ends = l->args[2];
    char *to = ARG(l, 3, char *);
    const struct addresses *from = l->args[4];
    const int64_t count = ARG(l, 5, int32_t);
    const size_t size = (size_t)l->kind;
    if (!fake_cuda_reaches(l, to, (size_t)count * size)) return;
    for (int i = 0; i < ends->count; i++) {
        const int64_t begin = (i ? ends->at[i - 1] : 0) * inside, piece = ends->at[i] * inside - begin;
        if (!fake_cuda_reaches(l, from->at[i], (size_t)(count / row * piece) * size)) return;
        for (int64_t r = 0; r < count / row; r++)
            memcpy(to + (size_t)(r * row + begin) * size, from->at[i] + (size_t)(r * piece) * size, (size_t)piece * size);
    }
}

/* The same where the pieces are large. */
static void concat_input_major(const struct launch *l) {
    const struct addresses *from = l->args[0];
    const struct counts *begins = l->args[2];
    const struct pitches *pieces = l->args[3];
    const int64_t rows = ARG(l, 4, int32_t), row = ARG(l, 5, int32_t);
    char *to = ARG(l, 6, char *);
    const size_t size = (size_t)l->kind;
    if (!fake_cuda_reaches(l, to, (size_t)(rows * row) * size)) return;
    for (int i = 0; i < from->count; i++) {
        const size_t piece = pieces->at[i].by * size;
        if (!fake_cuda_reaches(l, from->at[i], (size_t)rows * piece)) return;
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + (size_t)(r * row + begins->at[i]) * size, from->at[i] + (size_t)r * piece, piece);
    }
}

/* Inputs of one size along the axis; their addresses by value, or in the device's memory. */
static void concat_same(const struct launch *l, const char *const *from) {
    const int64_t row = DIVISOR(l, 0), inside = DIVISOR(l, 1), each = DIVISOR(l, 2);
    char *to = ARG(l, 3, char *);
    const int64_t count = ARG(l, 5, int32_t), piece = each * inside;
    const size_t size = (size_t)l->kind;
    if (!fake_cuda_reaches(l, to, (size_t)count * size)) return;
    for (int64_t r = 0; r < count / row; r++)
        for (int64_t i = 0; i < row / piece; i++)
            memcpy(to + (size_t)(r * row + i * piece) * size, from[i] + (size_t)(r * piece) * size, (size_t)piece * size);
}
static void concat_same_by_value(const struct launch *l) { concat_same(l, ((const struct addresses *)l->args[4])->at); }
static void concat_same_by_address(const struct launch *l) { concat_same(l, ARG(l, 4, const char *const *)); }

/* More than 32 inputs: their description is in the device's memory. */
static void concat_general(const struct launch *l) {
    const int64_t row = DIVISOR(l, 0), inside = DIVISOR(l, 1);
    const int64_t *sizes = ARG(l, 2, const int64_t *), *ends = ARG(l, 3, const int64_t *);
    const int64_t *input_of = ARG(l, 4, const int64_t *);
    char *to = ARG(l, 5, char *);
    const char *const *from = ARG(l, 6, const char *const *);
    const int64_t count = ARG(l, 7, int32_t);
    const size_t size = (size_t)l->kind;
    if (!fake_cuda_reaches(l, to, (size_t)count * size)) return;
    for (int64_t i = 0; i < count; i++) {
        const int64_t outer = i / row, block = i % row / inside, input = input_of[block];
        const int64_t within = block - (input ? ends[input - 1] : 0);
        const int64_t at = (outer * sizes[input] + within) * inside + i % inside;
        memcpy(to + (size_t)i * size, from[input] + (size_t)at * size, size);
    }
}

/* ---- Split along the last axis into up to four pieces, whose sizes are in bytes ---- */
static void split_small(const struct launch *l) {
    const struct few_numbers *pieces = l->args[0];
    const char *from = ARG(l, 1, const char *);
    const struct few_addresses *to = l->args[2];
    const size_t row = ARG(l, 3, size_t), size = COUNT(l, 4) * (size_t)l->kind, rows = size / row;
    size_t begin = 0;
    if (!fake_cuda_reaches(l, from, size)) return;
    for (int i = 0; i < pieces->count; i++) {
        const size_t piece = (size_t)pieces->at[i];
        if (!fake_cuda_reaches(l, to->at[i], rows * piece)) return;
        for (size_t r = 0; r < rows; r++) memcpy(to->at[i] + r * piece, from + r * row + begin, piece);
        begin += piece;
    }
}

/* ---- Gather: an index outside gives zeros, a negative one counts from the end ---- */
static void gather(const struct launch *l) {
    const int64_t in_block = ARG(l, 0, int64_t), limit = ARG(l, 1, int64_t);
    const int64_t out_block = DIVISOR(l, 2), block = DIVISOR(l, 3);
    const void *indices = ARG(l, 4, const void *);
    const size_t index_size = ARG(l, 5, size_t), size = (size_t)l->kind;
    const char *from = ARG(l, 6, const char *);
    char *to = ARG(l, 7, char *);
    const int64_t count = ARG(l, 8, int32_t);
    if (!fake_cuda_reaches(l, to, (size_t)count * size)) return;
    if (!fake_cuda_reaches(l, indices, (size_t)(out_block / block) * index_size)) return;
    for (int64_t i = 0; i < count; i += block) {
        const int64_t outer = i / out_block, which = i % out_block / block;
        int64_t index = index_size == 8 ? ((const int64_t *)indices)[which] : ((const int32_t *)indices)[which];
        if (index < 0) index += limit;
        if (index < 0 || index >= limit) {
            fake_cuda_trace("OUTSIDE %s index %lld of %lld", l->name, (long long)index, (long long)limit);
            memset(to + (size_t)i * size, 0, (size_t)block * size);
            continue;
        }
        const char *row = from + (size_t)(outer * in_block + index * block) * size;
        if (!fake_cuda_reaches(l, row, (size_t)block * size)) return;
        memcpy(to + (size_t)i * size, row, (size_t)block * size);
    }
}

/* ---- Slice ---- */
static void slice(const struct launch *l) {
    const struct numbers *starts = l->args[0], *steps = l->args[1], *strides = l->args[2];
    const struct divisors *sizes = l->args[3];
    const char *from = ARG(l, 4, const char *);
    char *to = ARG(l, 5, char *);
    const int64_t count = ARG(l, 6, int32_t);
    const size_t size = (size_t)l->kind;
    const int rank = strstr(l->name, "_SliceKernelILb0ELi")[strlen("_SliceKernelILb0ELi")] - '0';
    if (!fake_cuda_reaches(l, to, (size_t)count * size)) return;
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, at = 0;
        for (int d = 0; d + 1 < rank; d++) {
            at += (starts->at[d] + rest / sizes->at[d].by * steps->at[d]) * strides->at[d];
            rest %= sizes->at[d].by;
        }
        at += starts->at[rank - 1] + rest * steps->at[rank - 1];
        if (!fake_cuda_reaches(l, from + (size_t)at * size, size)) return;
        memcpy(to + (size_t)i * size, from + (size_t)at * size, size);
    }
}

/* ---- sums of int32 ---- */
static void running_sum(const struct launch *l) {
    const int32_t *from = ARG(l, 0, const int32_t *);
    const int64_t length = DIVISOR(l, 1), stride = DIVISOR(l, 2);
    int32_t *to = ARG(l, 3, int32_t *);
    const int64_t count = ARG(l, 4, int64_t);
    const int exclusive = ARG(l, 5, char), reverse = ARG(l, 6, char);
    if (!fake_cuda_reaches(l, from, (size_t)count * 4) || !fake_cuda_reaches(l, to, (size_t)count * 4)) return;
    for (int64_t line = 0; line < count / length; line++) {
        const int64_t begin = line / stride * stride * length + line % stride;
        int32_t sum = 0;
        for (int64_t i = 0; i < length; i++) {
            const int64_t at = begin + (reverse ? length - 1 - i : i) * stride;
            const int32_t value = from[at];
            to[at] = exclusive ? sum : sum + value;
            sum += value;
        }
    }
}

/* ReduceSum over any axes: kept and reduced axes are segments with a size and a stride, the last one fastest. */
struct reduction {
    int32_t kept_segments, summed_segments;
    int64_t kept_sizes[16], kept_strides[16], summed_sizes[16], summed_strides[16], kept, summed;
};

static int64_t place(int64_t number, int segments, const int64_t *sizes, const int64_t *strides) {
    int64_t at = 0;
    for (int s = segments - 1; s >= 0; s--) {
        at += number % sizes[s] * strides[s];
        number /= sizes[s];
    }
    return at;
}

static void sum_over(const struct launch *l) {
    const int32_t *from = ARG(l, 0, const int32_t *);
    int32_t *to = ARG(l, 1, int32_t *);
    const struct reduction *r = l->args[2];
    if (!fake_cuda_reaches(l, from, (size_t)(r->kept * r->summed) * 4)) return;
    if (!fake_cuda_reaches(l, to, (size_t)r->kept * 4)) return;
    for (int64_t i = 0; i < r->kept; i++) {
        const int64_t begin = place(i, r->kept_segments, r->kept_sizes, r->kept_strides);
        double sum = 0;
        for (int64_t j = 0; j < r->summed; j++)
            sum += from[begin + place(j, r->summed_segments, r->summed_sizes, r->summed_strides)];
        to[i] = sum >= INT32_MAX ? INT32_MAX : sum <= INT32_MIN ? INT32_MIN : (int32_t)sum;
    }
}

#define FOR_EACH_SIZE(name, parameters, compute)                                                                               \
    {name "Ia", parameters, compute, 1}, {name "Is", parameters, compute, 2}, {name "Ii", parameters, compute, 4},             \
        {name "Il", parameters, compute, 8}
#define SLICES(letter, size) {"_SliceKernelILb0E*" letter "EEvNS0_6TArray", "AAABppi", slice, size}

const struct emulated shape_kernels[] = {
    FOR_EACH_SIZE("_ConcatKernelOutputMajor", "DDCpCi", concat_output_major),
    FOR_EACH_SIZE("_ConcatKernelInputMajor", "CEEFiip", concat_input_major),
    {"_ConcatKernelSameConcatDimIsNS0_6TArray", "DDDpCi", concat_same_by_value, 2},
    {"_ConcatKernelSameConcatDimIiNS0_6TArray", "DDDpCi", concat_same_by_value, 4},
    {"_ConcatKernelSameConcatDimIlNS0_6TArray", "DDDpCi", concat_same_by_value, 8},
    FOR_EACH_SIZE("_ConcatKernelSameConcatDim", "DDDppi", concat_same_by_address),
    FOR_EACH_SIZE("_ConcatKernel", "DDpppppi", concat_general),
    FOR_EACH_SIZE("_SplitSmallInnerKernel", "SpSli", split_small),
    {"_SplitSmallInnerKernelI4int4", "SpSli", split_small, 16},
    FOR_EACH_SIZE("_GatherKernel", "llDDplppi", gather),
    SLICES("s", 2),
    SLICES("i", 4),
    SLICES("l", 8),
    {"_CumSumKernelIi", "pDDplbb", running_sum, 0},
    {"reduce_sum_nd_kernelIi", "ppR", sum_over, 0},
    {0},
};
