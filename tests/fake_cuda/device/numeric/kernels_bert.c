/* Kernels of onnxruntime/contrib_ops/cuda/bert that work on rows and on lengths: embeddings, normalization, Gelu with a bias,
   masks to lengths, and lengths to offsets. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <math.h>
#include <string.h>

enum { WIDEST = 1 << 14 };

static void normalize(const float *x, size_t width, const half *gamma, const half *beta, float epsilon, half *y) {
    float sum = 0, squares = 0;
    for (size_t i = 0; i < width; i++) sum += x[i];
    const float mean = sum / (float)width;
    for (size_t i = 0; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1 / sqrtf(squares / (float)width + epsilon);
    for (size_t i = 0; i < width; i++) {
        const float v = (x[i] - mean) * inverse * from_half(gamma[i]) + (beta ? from_half(beta[i]) : 0);
        y[i] = to_half(v);
    }
}

/* ---- EmbedLayerNormalization: a block for each token, the grid is [sequence, batch] ---- */

static int row_of(const struct launch *l, const char *what, const half *table, int64_t row, size_t width, float *x) {
    const half *at = table + row * (int64_t)width;
    if (row < 0) {
        fake_cuda_alarm("FAULT %s looks up row %lld of the %s table", l->name, (long long)row, what);
        return fake_cuda_fail(ILLEGAL_ADDRESS), 0;
    }
    if (!fake_cuda_reaches(l, at, width * sizeof(half))) return 0;
    for (size_t i = 0; i < width; i++) x[i] += from_half(at[i]);
    return 1;
}

static void embed(const struct launch *l) {
    const size_t width = COUNT(l, 0), length = l->grid.x, rows = (size_t)l->grid.x * l->grid.y;
    const int32_t *ids = ARG(l, 1, const int32_t *), *types = ARG(l, 2, const int32_t *);
    const int32_t *positions = ARG(l, 11, const int32_t *);
    const half *beta = ARG(l, 3, const half *), *gamma = ARG(l, 4, const half *);
    const half *words = ARG(l, 5, const half *), *places = ARG(l, 6, const half *), *kinds = ARG(l, 7, const half *);
    const float epsilon = ARG(l, 8, float);
    half *y = ARG(l, 9, half *), *sums = ARG(l, 10, half *);
    const int repeated = ARG(l, 12, char);
    static __thread float x[WIDEST];
    if (width > WIDEST || !fake_cuda_reaches(l, ids, rows * 4) || !fake_cuda_reaches(l, y, rows * width * sizeof(half))) return;
    if (types && !fake_cuda_reaches(l, types, rows * 4)) return;
    if (positions && !fake_cuda_reaches(l, positions, (repeated ? length : rows) * 4)) return;
    for (size_t r = 0; r < rows; r++) {
        const int64_t position = !positions ? (int64_t)(r % length) : positions[repeated ? r % length : r];
        memset(x, 0, width * sizeof *x);
        if (!row_of(l, "word", words, ids[r], width, x) || !row_of(l, "position", places, position, width, x)) return;
        if (kinds && !row_of(l, "type", kinds, types ? types[r] : 0, width, x)) return;
        for (size_t i = 0; i < width && sums; i++) sums[r * width + i] = to_half(x[i]);
        normalize(x, width, gamma, beta, epsilon, y + r * width);
    }
}

/* ---- SkipLayerNormalization: a block for each row ---- */
static void skip_normalize(const struct launch *l) {
    half *y = ARG(l, 0, half *), *sums = ARG(l, 1, half *);
    const half *input = ARG(l, 2, const half *), *skip = ARG(l, 3, const half *), *bias = ARG(l, 4, const half *);
    const half *gamma = ARG(l, 5, const half *), *beta = ARG(l, 6, const half *);
    const float epsilon = ARG(l, 7, float);
    const size_t width = COUNT(l, 8), skip_size = COUNT(l, 9), count = l->grid.x * width;
    static __thread float x[WIDEST];
    if (width > WIDEST || !fake_cuda_reaches(l, input, count * 2) || !fake_cuda_reaches(l, y, count * 2)) return;
    if (!fake_cuda_reaches(l, skip, (count < skip_size ? count : skip_size) * 2)) return;
    for (size_t r = 0; r < l->grid.x; r++) {
        for (size_t i = 0; i < width; i++) {
            const size_t at = r * width + i;
            x[i] = from_half(input[at]) + (bias ? from_half(bias[i]) : 0) + from_half(skip[at % skip_size]);
            if (sums) sums[at] = to_half(x[i]);
        }
        normalize(x, width, gamma, beta, epsilon, y + r * width);
    }
}

/* ---- Gelu of rows and a bias ---- */
struct gelu {
    const half *from, *bias;
    half *to;
    size_t width, count;
    int fast; /* by tanh */
};
enum { SHARE = 1 << 14 }; /* elements that a thread takes at a time */

static void gelu_share(void *context, size_t number) {
    const struct gelu *g = context;
    const size_t begin = number * SHARE, end = begin + SHARE < g->count ? begin + SHARE : g->count;
    for (size_t i = begin; i < end; i++) {
        const float x = from_half(g->from[i]) + (g->bias ? from_half(g->bias[i % g->width]) : 0);
        const float inner = g->fast ? tanhf(0.7978845608f * (x + 0.044715f * x * x * x)) : erff(x * (float)M_SQRT1_2);
        g->to[i] = to_half(0.5f * x * (1 + inner));
    }
}

static void gelu(const struct launch *l, struct gelu g) {
    if (!fake_cuda_reaches(l, g.from, g.count * 2) || !fake_cuda_reaches(l, g.to, g.count * 2)) return;
    if (g.bias && !fake_cuda_reaches(l, g.bias, g.width * 2)) return;
    fake_cuda_in_parallel((g.count + SHARE - 1) / SHARE, gelu_share, &g);
}

static void bias_gelu(const struct launch *l) { /* the rows are the grid's */
    const size_t width = (size_t)ARG(l, 0, int64_t);
    gelu(l, (struct gelu){ARG(l, 1, half *), ARG(l, 2, half *), ARG(l, 3, half *), width, l->grid.x * width, 0});
}

static void fast_gelu(const struct launch *l) { /* kind: elements that each number in the arguments stands for */
    const size_t count = COUNT(l, 3) * (size_t)l->kind, width = COUNT(l, 4) * (size_t)l->kind;
    gelu(l, (struct gelu){ARG(l, 5, half *), ARG(l, 6, half *), ARG(l, 7, half *), width, count, 1});
}

/* ---- lengths ---- */
static void mask_to_length(const struct launch *l) { /* up to the first zero; a block for each text */
    const size_t length = COUNT(l, 0);
    const int32_t *mask = ARG(l, 1, const int32_t *);
    int32_t *lengths = ARG(l, 2, int32_t *);
    if (!fake_cuda_reaches(l, mask, l->grid.x * length * 4) || !fake_cuda_reaches(l, lengths, l->grid.x * 4)) return;
    for (size_t b = 0; b < l->grid.x; b++) {
        size_t i = 0;
        while (i < length && mask[b * length + i]) i++;
        lengths[b] = (int32_t)i;
    }
}

static int32_t between(int32_t least, int32_t value, int32_t most) {
    return value < least ? least : value > most ? most : value;
}

/* Lengths of keys, starts of queries with their end, starts of keys with theirs, clamped to the tensors they point into. How
   the real kernel clamps is a guess; the graphs never need it, and a value outside fails the run. */
static void held_spans(const struct launch *l) {
    const int32_t *from = ARG(l, 0, const int32_t *);
    int32_t *to = ARG(l, 1, int32_t *);
    const int batch = ARG(l, 2, int32_t), queries = ARG(l, 3, int32_t), keys = ARG(l, 4, int32_t);
    const size_t count = (size_t)(3 * batch + 2);
    if (!fake_cuda_reaches(l, from, count * 4) || !fake_cuda_reaches(l, to, count * 4)) return;
    for (int i = 0; i < 3 * batch + 2; i++) {
        const int32_t most = i < batch ? keys : i <= 2 * batch ? batch * queries : batch * keys;
        to[i] = between(0, from[i], most);
        if (to[i] == from[i]) continue;
        fake_cuda_alarm("FAULT %s: value %d of the mask is %d, at most %d", l->name, i, from[i], most);
        fake_cuda_fail(ILLEGAL_ADDRESS);
    }
}

/* The starts of each text and of the padding after it, which counts as a text: two for each text, and the end. */
static void offsets_with_padding(const struct launch *l) {
    int32_t *to = ARG(l, 0, int32_t *);
    const int32_t *lengths = ARG(l, 1, const int32_t *);
    const int batch = ARG(l, 2, int32_t), length = ARG(l, 3, int32_t);
    if (!fake_cuda_reaches(l, to, (size_t)(2 * batch + 1) * 4) || !fake_cuda_reaches(l, lengths, (size_t)batch * 4)) return;
    for (int b = 0; b < batch; b++) {
        to[2 * b] = b * length;
        to[2 * b + 1] = b * length + lengths[b];
    }
    to[2 * batch] = batch * length;
}

static void offsets_without_mask(const struct launch *l) {
    int32_t *to = ARG(l, 0, int32_t *);
    const int batch = ARG(l, 1, int32_t), length = ARG(l, 2, int32_t);
    if (!fake_cuda_reaches(l, to, (size_t)(batch + 1) * 4)) return;
    for (int b = 0; b <= batch; b++) to[b] = b * length;
}

static void offsets_without_padding(const struct launch *l) {
    int32_t *to = ARG(l, 0, int32_t *);
    const int32_t *lengths = ARG(l, 1, const int32_t *);
    const int batch = ARG(l, 2, int32_t);
    if (!fake_cuda_reaches(l, to, (size_t)(batch + 1) * 4) || !fake_cuda_reaches(l, lengths, (size_t)batch * 4)) return;
    to[0] = 0;
    for (int b = 0; b < batch; b++) to[b + 1] = to[b] + lengths[b];
}

const struct emulated bert_kernels[] = {
    {"EmbedLayerNormKernelI6__half", "ippppppp" "fpppb", embed, 0},
    {"SkipLayerNormKernelSmallI6__half*ELb0EE", "pppppppfii", skip_normalize, 0},
    {"SkipLayerNormKernelI6__half*ELb0EE", "pppppppfii", skip_normalize, 0},
    {"BiasGeluKernelI6__half", "lppp", bias_gelu, 0}, /* and the vectorized one */
    {"FastGeluKernel2I", "vvviippp", fast_gelu, 2},
    {"FastGeluKernelI6__half", "hhhiippp", fast_gelu, 1},
    {"MaskIndexKernel", "ipp", mask_to_length, 0}, /* and the small one */
    {"SanitizeMask1DKeySeqLenStartValues", "ppiii", held_spans, 0},
    {"getTrtSequenceOffsetEPiPKiii", "ppii", offsets_with_padding, 0},
    {"getTrtSequenceOffsetEPiPKii", "ppi", offsets_without_padding, 0},
    {"getTrtSequenceOffsetNoMaskEPiii", "pii", offsets_without_mask, 0},
    {0},
};
