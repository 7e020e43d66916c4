/* Kernels of onnxruntime/contrib_ops/cuda/bert that add a bias to queries, keys and values and bring them into the layout of
   an attention kernel: B texts, S tokens, N heads of H numbers, M matrices (queries, keys, values). Packed texts:
   kernels_packed.c. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <string.h>

/* Sizes, from the launch's shape: the grid is [S, B, M], the block [H, N] in elements. */
struct sizes { size_t batch, length, heads, width, matrices; };

static struct sizes sizes_of(const struct launch *l, int head_size, int matrices) {
    const size_t width = (head_size ? (size_t)head_size : l->block.x) * lanes(l->name);
    return (struct sizes){l->grid.y, l->grid.x, l->block.y, width, matrices ? (size_t)matrices : l->grid.z};
}

/* The orders of the axes; the place of a head's first number, for any text, token, head and matrix. */
enum order { BSMNH, BSNMH, MBNSH, MBSNH };

static size_t place(enum order o, const struct sizes *z, size_t b, size_t s, size_t n, size_t m) {
    switch (o) {
        case BSMNH: return (((b * z->length + s) * z->matrices + m) * z->heads + n) * z->width;
        case BSNMH: return (((b * z->length + s) * z->heads + n) * z->matrices + m) * z->width;
        case MBNSH: return (((m * z->batch + b) * z->heads + n) * z->length + s) * z->width;
        default: return (((m * z->batch + b) * z->length + s) * z->heads + n) * z->width;
    }
}

static void move(const struct launch *l, const struct sizes *z, enum order from_order, enum order to_order, const half *from,
                 const half *bias, half *to, half *kept) {
    const size_t count = z->batch * z->length * z->heads * z->width * z->matrices;
    if (!fake_cuda_reaches(l, from, count * 2) || !fake_cuda_reaches(l, to, count * 2)) return;
    for (size_t m = 0; m < l->grid.z; m++)
        for (size_t b = 0; b < z->batch; b++)
            for (size_t s = 0; s < z->length; s++)
                for (size_t n = 0; n < z->heads; n++) {
                    const size_t source = place(from_order, z, b, s, n, m), target = place(to_order, z, b, s, n, m);
                    const half *b16 = bias ? bias + (m * z->heads + n) * z->width : NULL;
                    for (size_t h = 0; h < z->width; h++) {
                        const half v = b16 ? to_half(from_half(from[source + h]) + from_half(b16[h])) : from[source + h];
                        to[target + h] = v;
                        if (kept) kept[source + h] = v;
                    }
                }
}

/* One kernel for each pair of orders, encoded in kind; variants for wide models get the width of a head, and some also the
   number of matrices, by other arguments. */
#define FROM(kind) ((enum order)((kind) >> 4))
#define TO(kind) ((enum order)((kind) & 15))
#define KIND(from, to) ((from) << 4 | (to))

static void plain(const struct launch *l) {
    const struct sizes z = sizes_of(l, 0, 0);
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 0, half *), ARG(l, 1, half *), ARG(l, 2, half *), NULL);
}
static void with_width(const struct launch *l) {
    const struct sizes z = sizes_of(l, ARG(l, 0, int32_t), 0);
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), NULL);
}
static void with_matrices(const struct launch *l) {
    const struct sizes z = sizes_of(l, 0, ARG(l, 0, int32_t));
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), NULL);
}
static void with_matrices_kept(const struct launch *l) {
    const struct sizes z = sizes_of(l, 0, ARG(l, 0, int32_t));
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), ARG(l, 4, half *));
}
static void with_width_matrices(const struct launch *l) {
    const struct sizes z = sizes_of(l, ARG(l, 0, int32_t), ARG(l, 4, int32_t));
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), NULL);
}
static void with_width_matrices_kept(const struct launch *l) {
    const struct sizes z = sizes_of(l, ARG(l, 0, int32_t), ARG(l, 5, int32_t));
    move(l, &z, FROM(l->kind), TO(l->kind), ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), ARG(l, 4, half *));
}

/* Separate queries, keys and values: BSNH each, to BSNMH. */
static void from_three(const struct launch *l) {
    const struct sizes z = sizes_of(l, 0, 0);
    const half *bias = ARG(l, 3, const half *);
    half *to = ARG(l, 4, half *);
    const struct sizes one = {z.batch, z.length, z.heads, z.width, 1};
    const size_t count = z.batch * z.length * z.heads * z.width;
    if (!fake_cuda_reaches(l, to, count * z.matrices * 2)) return;
    for (size_t m = 0; m < z.matrices; m++) {
        const half *from = ARG(l, m, const half *);
        if (!fake_cuda_reaches(l, from, count * 2)) return;
        for (size_t i = 0; i < count; i++) {
            const size_t h = i % z.width, n = i / z.width % z.heads, s = i / z.width / z.heads % z.length;
            const size_t b = i / z.width / z.heads / z.length;
            const float add = bias ? from_half(bias[(m * z.heads + n) * z.width + h]) : 0;
            to[place(BSNMH, &z, b, s, n, m) + h] = to_half(from_half(from[place(BSMNH, &one, b, s, n, 0) + h]) + add);
        }
    }
}

/* ---- the result of an unfused attention, B N S H, to B S N H or S B N H; kind: bytes of an element ---- */
static void heads_together(const struct launch *l) {
    const size_t head = COUNT(l, 0) * (size_t)l->kind, length = l->grid.x, batch = l->grid.y, heads = l->block.y;
    const int tokens_first = ARG(l, 1, char);
    const char *from = ARG(l, 2, const char *);
    char *to = ARG(l, 3, char *);
    const size_t all = batch * length * heads * head;
    if (!fake_cuda_reaches(l, from, all) || !fake_cuda_reaches(l, to, all)) return;
    for (size_t b = 0; b < batch; b++)
        for (size_t s = 0; s < length; s++)
            for (size_t n = 0; n < heads; n++) {
                const size_t row = tokens_first ? s * batch + b : b * length + s;
                memcpy(to + (row * heads + n) * head, from + ((b * heads + n) * length + s) * head, head);
            }
}

const struct emulated transpose_kernels[] = {
    HALVES("19AddBiasTransposeTrt", "PKT_S?_PS?_", "ppp", plain, KIND(BSMNH, BSNMH)),
    HALVES("19AddBiasTransposeTrt", "PKT_S?_S?_S?_PS?_", "ppppp", from_three, 0),
    HALVES("24AddBiasTransposeTrtLarge", "iPKT_S?_PS?_", "ippp", with_width, KIND(BSMNH, BSNMH)),
    HALVES("19AddBiasTransposeQKV", "iPKT_S?_PS?_S?_", "ipppp", with_matrices_kept, KIND(BSMNH, MBNSH)),
    HALVES("24AddBiasTransposeQKVLarge", "iPKT_S?_PS?_S?_i", "ippppi", with_width_matrices_kept, KIND(BSMNH, MBNSH)),
    HALVES("23AddBiasTransposeCutlass", "iPKT_S?_PS?_", "ippp", with_matrices, KIND(BSMNH, MBSNH)),
    HALVES("28AddBiasTransposeCutlassLarge", "iPKT_S?_PS?_i", "ipppi", with_width_matrices, KIND(BSMNH, MBSNH)),
    HALVES("16AddBiasTranspose", "PKT_S?_PS?_", "ppp", plain, KIND(MBSNH, MBNSH)),
    HALVES("21AddBiasTransposeLarge", "iPKT_S?_PS?_", "ippp", with_width, KIND(MBSNH, MBNSH)),
    HALVES("13AddBiasUnpack", "iPKT_S?_PS?_", "ippp", with_matrices, KIND(BSNMH, MBSNH)),
    HALVES("22AddBiasTransposeUnpack", "iPKT_S?_PS?_", "ippp", with_matrices, KIND(BSNMH, MBNSH)),
    {"TransposeCtxI6float4", "ibpp", heads_together, 16},
    {"TransposeCtxI6float2", "ibpp", heads_together, 8},
    {"TransposeCtxI7__half2", "ibpp", heads_together, 4},
    {"TransposeCtxIf", "ibpp", heads_together, 4},
    {"TransposeCtxI6__half", "ibpp", heads_together, 2},
    {"TransposeCtxLargeI6float2", "ibpp", heads_together, 8},
    {"TransposeCtxLargeI7__half2", "ibpp", heads_together, 4},
    {"TransposeCtxLargeI6__half", "ibpp", heads_together, 2},
    {0},
};
