/* Fused attention kernels, and the softmax of the unfused one.

   The fused ones take one structure by value. Its fields are those of the provider's source; unused ones are left out. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- CUTLASS' memory-efficient attention: the grid is [blocks of queries, heads, texts] ---- */
struct efficient {
    half *query, *key, *value, *bias;
    int32_t *query_starts, *key_starts, *key_lengths; /* of packed texts, or of padded ones */
    uint32_t diagonal;
    half *output;
    float *sums, *logarithms;
    int32_t window; /* -1: every key is seen */
    float scale, cap;
    int32_t width, value_width, queries, keys, all_keys;
    uint8_t mask;
    int32_t query_row, key_row, value_row, bias_row, output_row;
    int32_t query_head, key_head, value_head;
    int64_t bias_head, query_batch, key_batch, value_batch, bias_batch;
    int32_t batches, heads;
    char dropout[24];
};
_Static_assert(sizeof(struct efficient) == 232, "what launch.c copies");

struct efficient_launch {
    const struct launch *l;
    const struct efficient *p;
    size_t rows_of_block;
};

static void efficient_head(void *context, size_t number) {
    const struct efficient_launch *c = context;
    const struct efficient *p = c->p;
    const size_t b = number / c->l->grid.y, n = number % c->l->grid.y;
    size_t query_at, key_at, queries = (size_t)p->queries, keys = (size_t)p->keys, out_at;
    if (p->query_starts) {
        query_at = (size_t)p->query_starts[b] * (size_t)p->query_row;
        key_at = (size_t)p->key_starts[b];
        out_at = (size_t)p->query_starts[b] * (size_t)p->output_row;
        queries = (size_t)(p->query_starts[b + 1] - p->query_starts[b]);
        keys = (size_t)(p->key_lengths ? p->key_lengths[b] : p->key_starts[b + 1] - p->key_starts[b]);
    } else {
        query_at = b * (size_t)p->query_batch;
        key_at = 0;
        out_at = b * queries * (size_t)p->output_row;
    }
    if (queries > c->l->grid.x * c->rows_of_block) { /* rows that no block computes */
        fake_cuda_alarm("FAULT %s: text %zu has %zu queries, the grid is for %zu", c->l->name, b, queries,
                        c->l->grid.x * c->rows_of_block);
        fake_cuda_fail(ILLEGAL_ADDRESS);
        return;
    }
    const size_t batch = p->query_starts ? 0 : b;
    const struct attention a = {
        .q = p->query + query_at + n * (size_t)p->query_head,
        .k = p->key + batch * (size_t)p->key_batch + key_at * (size_t)p->key_row + n * (size_t)p->key_head,
        .v = p->value + batch * (size_t)p->value_batch + key_at * (size_t)p->value_row + n * (size_t)p->value_head,
        .o = p->output + out_at + n * (size_t)p->value_width,
        .q_step = (size_t)p->query_row,
        .k_step = (size_t)p->key_row,
        .v_step = (size_t)p->value_row,
        .o_step = (size_t)p->output_row,
        .queries = queries,
        .keys = keys,
        .width = (size_t)p->width,
        .value_width = (size_t)p->value_width,
        .scale = p->scale,
    };
    if (!queries || !keys) return; /* no rows, or none that anything was promised for */
    if (!fake_cuda_reaches(c->l, a.q, ((queries - 1) * a.q_step + a.width) * 2)) return;
    if (!fake_cuda_reaches(c->l, a.k, ((keys - 1) * a.k_step + a.width) * 2)) return;
    if (!fake_cuda_reaches(c->l, a.v, ((keys - 1) * a.v_step + a.value_width) * 2)) return;
    if (!fake_cuda_reaches(c->l, a.o, ((queries - 1) * a.o_step + a.value_width) * 2)) return;
    attend(&a);
}

static void efficient(const struct launch *l) {
    const struct efficient *p = l->args[0];
    int rows = 0, keys = 0, width = 0;
    const char *sizes = strstr(l->name, "ELb1ELi") ? strstr(l->name, "ELb1ELi") : strstr(l->name, "ELb0ELi");
    if (!sizes || sscanf(sizes + strlen("ELb1ELi"), "%dELi%dELi%d", &rows, &keys, &width) != 3 || p->width > width ||
        p->bias || p->mask || p->cap != 0 || p->window >= 0 || (p->query_starts == NULL) != (p->key_starts == NULL)) {
        fake_cuda_alarm("UNKNOWN use of %s: bias %p, mask %d, width %d", l->name, (void *)p->bias, p->mask, p->width);
        fake_cuda_fail(LAUNCH_FAILURE);
        return;
    }
    struct efficient_launch context = {l, p, (size_t)rows};
    fake_cuda_in_parallel((size_t)l->grid.y * l->grid.z, efficient_head, &context);
}

/* ---- TensorRT's fused attention: tokens of all texts in a row, [heads, 3, width] each; the grid is [heads, texts, ..] ---- */
struct fused {
    char *qkv, *dropout, *output;
    int64_t row_bytes, dropout_bytes, output_row_bytes;
    int32_t batch, heads, length, width;
    uint32_t scale, softmax_scale, output_scale; /* float16, twice in one word */
    uint8_t integer;
    int32_t *starts; /* [texts + 1] */
    uint8_t flags[4];
    int32_t windows;
};
_Static_assert(sizeof(struct fused) == 96, "what launch.c copies");

struct fused_launch {
    const struct launch *l;
    const struct fused *p;
    size_t longest;
};

static void fused_head(void *context, size_t number) {
    const struct fused_launch *c = context;
    const struct fused *p = c->p;
    const size_t b = number / (size_t)p->heads, n = number % (size_t)p->heads, width = (size_t)p->width;
    const int32_t begin = p->starts[b], end = p->starts[b + 1];
    if (begin < 0 || end < begin || (size_t)(end - begin) > c->longest) {
        fake_cuda_alarm("FAULT %s: text %zu lies from token %d to %d, at most %zu fit", c->l->name, b, begin, end, c->longest);
        fake_cuda_fail(ILLEGAL_ADDRESS);
        return;
    }
    const size_t tokens = (size_t)(end - begin), step = (size_t)p->row_bytes / 2, out_step = (size_t)p->output_row_bytes / 2;
    const half *qkv = (const half *)p->qkv + (size_t)begin * step + n * 3 * width;
    half *o = (half *)p->output + (size_t)begin * out_step + n * width;
    if (!tokens || !fake_cuda_reaches(c->l, qkv, ((tokens - 1) * step + 3 * width) * 2)) return;
    if (!fake_cuda_reaches(c->l, o, ((tokens - 1) * out_step + width) * 2)) return;
    attend(&(struct attention){qkv, qkv + width, qkv + 2 * width, o, step, step, step, out_step, tokens, tokens, width, width,
                               from_half((half)p->scale)});
}

static void fused(const struct launch *l) {
    const struct fused *p = l->args[0];
    int longest = 0, width = 0;
    /* fmha_v2_fp16_LENGTH_WIDTH_sm80_kernel; the flash ones are for any length */
    const char *sizes = strstr(l->name, "fmha_v2_fp16_");
    if (sizes) sscanf(sizes, "fmha_v2_fp16_%d_%d_", &longest, &width);
    else longest = p->length;
    if (p->integer || strstr(l->name, "ausal") || (sizes && width != p->width) || longest < p->length ||
        l->grid.x * l->grid.y * l->grid.z < (unsigned)(p->batch * p->heads)) {
        fake_cuda_alarm("UNKNOWN use of %s: batch %d heads %d length %d width %d", l->name, p->batch, p->heads, p->length,
                        p->width);
        fake_cuda_fail(LAUNCH_FAILURE);
        return;
    }
    if (!fake_cuda_reaches(l, p->starts, ((size_t)p->batch + 1) * 4)) return;
    struct fused_launch context = {l, p, (size_t)longest};
    fake_cuda_in_parallel((size_t)(p->batch * p->heads), fused_head, &context);
}

/* ---- softmax of rows of scores; the grid is [heads times queries, texts] ---- */
static void softmax_row(const half *from, half *to, size_t begin, size_t end, size_t count) {
    float most = -INFINITY, sum = 0;
    for (size_t i = begin; i < end; i++) most = fmaxf(most, from_half(from[i]));
    for (size_t i = begin; i < end; i++) sum += expf(from_half(from[i]) - most);
    for (size_t i = 0; i < count; i++) to[i] = i < begin || i >= end ? 0 : to_half(expf(from_half(from[i]) - most) / sum);
}

static void masked_softmax(const struct launch *l) { /* kind: whether the last parameter asks for a causal mask */
    const size_t keys = COUNT(l, 0), count = (size_t)l->grid.x * l->grid.y;
    const int32_t *ends = ARG(l, 2, const int32_t *), *begins = ARG(l, 3, const int32_t *);
    const half *from = ARG(l, 7, const half *);
    half *to = ARG(l, 8, half *);
    if (l->kind && ARG(l, 9, char)) {
        fake_cuda_alarm("UNKNOWN use of %s: causal", l->name);
        fake_cuda_fail(LAUNCH_FAILURE);
        return;
    }
    if (!fake_cuda_reaches(l, from, count * keys * 2) || !fake_cuda_reaches(l, to, count * keys * 2)) return;
    for (size_t b = 0; b < l->grid.y; b++) {
        size_t begin = begins && begins[b] > 0 ? (size_t)begins[b] : 0, end = ends[b] < (int32_t)keys ? (size_t)ends[b] : keys;
        if (begin >= end) begin = 0, end = keys; /* a text of only padding attends to all */
        for (size_t r = b * l->grid.x; r < (b + 1) * l->grid.x; r++)
            softmax_row(from + r * keys, to + r * keys, begin, end, keys);
    }
}

static void packed_softmax(const struct launch *l) { /* of packed texts, by their starts */
    const half *from = ARG(l, 0, const half *);
    const int32_t *starts = ARG(l, 4, const int32_t *);
    const size_t keys = COUNT(l, 5), count = (size_t)l->grid.x * l->grid.y;
    half *to = ARG(l, 7, half *);
    if (!fake_cuda_reaches(l, from, count * keys * 2) || !fake_cuda_reaches(l, to, count * keys * 2)) return;
    for (size_t r = 0; r < count; r++) {
        const size_t b = r / l->grid.x;
        softmax_row(from + r * keys, to + r * keys, 0, (size_t)(starts[b + 1] - starts[b]), keys);
    }
}

const struct emulated attention_kernels[] = {
    {"attention_kernel_batched_implI15AttentionKernelIN7cutlass6half_t*18DefaultToBatchHook", "M", efficient, 0},
    {"driver:fmha_v2_", "T", fused, 0},
    {"MaskedSoftmaxKernelSmallI6__half*ELb0EE", "iipppbbppb", masked_softmax, 1},
    {"MaskedSoftmaxKernelI6__half*ELb0EE", "iipppbbpp", masked_softmax, 0},
    {"SoftmaxKernelSmallWithCumSeqLenI6__half*ELb0EE", "ppbbpiip", packed_softmax, 0},
    {"SoftmaxKernelWithCumSeqLenI6__half*ELb0EE", "ppbbpiip", packed_softmax, 0},
    {0},
};
