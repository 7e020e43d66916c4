/* Flash Attention 2 of packed texts, without a mask; the grid is [blocks of queries, texts, heads].

   It takes one structure by value. Its fields are those of the provider's source, up to the last one that is used. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <stdio.h>
#include <string.h>

struct flash {
    half *query, *key, *value;
    int64_t query_batch, key_batch, value_batch, query_row, key_row, value_row, query_head, key_head, value_head;
    int32_t heads, key_heads, heads_of_a_key;
    half *output, *partial_output;
    int64_t output_batch, output_row, output_head;
    void *shares;
    float *logarithms, *partial_logarithms; /* log of the sum of each row, [heads, tokens] */
    int32_t batch, queries, keys, new_keys, width, rounded_queries, rounded_keys, rounded_width, rotary_width, tokens;
    float scale, scale_of_base_2, cap;
    int32_t *query_starts, *key_starts; /* [texts + 1] */
    int32_t *key_lengths, *block_mask;
    half *new_key, *new_value;
    int64_t new_strides[6];
    void *cosines, *sines;
    int32_t *cache_numbers, *pages;
    int64_t pages_batch;
    int32_t page, window_left, window_right; /* windows of -1: every key is seen */
    uint8_t bfloat, causal, cumulative, interleaved;
    void *sinks;
    uint8_t smooth;
    int32_t splits;
    void *slopes;
    int64_t slopes_batch;
    uint8_t unpadded_logarithms;
};
_Static_assert(sizeof(struct flash) == 424, "what launch.c copies");

struct flash_launch {
    const struct launch *l;
    const struct flash *p;
    size_t rows_of_block;
};

static void flash_head(void *context, size_t number) {
    const struct flash_launch *c = context;
    const struct flash *p = c->p;
    const size_t b = number / (size_t)p->heads, n = number % (size_t)p->heads, key_head = n / (size_t)p->heads_of_a_key;
    const int32_t begin = p->query_starts[b], end = p->query_starts[b + 1];
    const int32_t key_begin = p->key_starts[b], key_end = p->key_starts[b + 1];
    if (begin < 0 || end < begin || end > p->tokens || key_begin < 0 || key_end < key_begin ||
        (size_t)(end - begin) > c->l->grid.x * c->rows_of_block || key_end - key_begin > p->keys) {
        fake_cuda_alarm("FAULT %s: text %zu lies from token %d to %d of %d, its keys from %d to %d, at most %d fit",
                        c->l->name, b, begin, end, p->tokens, key_begin, key_end, p->keys);
        fake_cuda_fail(ILLEGAL_ADDRESS);
        return;
    }
    const struct attention a = {
        .q = p->query + begin * p->query_row + (int64_t)n * p->query_head,
        .k = p->key + key_begin * p->key_row + (int64_t)key_head * p->key_head,
        .v = p->value + key_begin * p->value_row + (int64_t)key_head * p->value_head,
        .o = p->output + begin * p->output_row + (int64_t)n * p->output_head,
        .q_step = (size_t)p->query_row,
        .k_step = (size_t)p->key_row,
        .v_step = (size_t)p->value_row,
        .o_step = (size_t)p->output_row,
        .queries = (size_t)(end - begin),
        .keys = (size_t)(key_end - key_begin),
        .width = (size_t)p->width,
        .value_width = (size_t)p->width,
        .scale = p->scale,
    };
    if (!a.queries) return;
    if (!fake_cuda_reaches(c->l, a.q, ((a.queries - 1) * a.q_step + a.width) * 2)) return;
    if (!fake_cuda_reaches(c->l, a.o, ((a.queries - 1) * a.o_step + a.width) * 2)) return;
    if (a.keys && (!fake_cuda_reaches(c->l, a.k, ((a.keys - 1) * a.k_step + a.width) * 2) ||
                   !fake_cuda_reaches(c->l, a.v, ((a.keys - 1) * a.v_step + a.width) * 2))) return;
    attend(&a);
}

static void flash(const struct launch *l) {
    const struct flash *p = l->args[0];
    int width = 0, rows = 0;
    const char *sizes = strstr(l->name, "kernel_traitsILi"); /* the widest head, rows of a block, .. */
    if (!sizes || sscanf(sizes, "kernel_traitsILi%dELi%dE", &width, &rows) != 2 || p->width > width || !p->query_starts ||
        !p->key_starts || p->key_lengths || p->pages || p->sinks || p->slopes || p->smooth || p->bfloat || p->causal ||
        !p->cumulative || p->cap != 0 || p->window_left >= 0 || p->window_right >= 0 || !p->unpadded_logarithms || p->shares ||
        l->grid.y != (unsigned)p->batch || l->grid.z != (unsigned)p->heads) {
        fake_cuda_alarm("UNKNOWN use of %s: batch %d heads %d width %d causal %d starts %p", l->name, p->batch, p->heads,
                        p->width, p->causal, (void *)p->query_starts);
        fake_cuda_fail(LAUNCH_FAILURE);
        return;
    }
    const size_t starts = ((size_t)p->batch + 1) * 4;
    if (!fake_cuda_reaches(l, p->query_starts, starts) || !fake_cuda_reaches(l, p->key_starts, starts)) return;
    if (!fake_cuda_reaches(l, p->logarithms, (size_t)p->heads * (size_t)p->tokens * 4)) return; /* written, and never read */
    struct flash_launch context = {l, p, (size_t)rows};
    fake_cuda_in_parallel((size_t)(p->batch * p->heads), flash_head, &context);
}

/* The switches: causal, within a window, with slopes, nothing beyond the last row, nor beyond the last column, with a cap, with
   the shares returned. Only the one for the last column may be either. */
const struct emulated flash_kernels[] = {
    {"16flash_fwd_kernelI*7cutlass6half_t*EEEELb0ELb0ELb0ELb0ELb?ELb0ELb0EEEvNS0_16Flash_fwd_paramsE$", "W", flash, 0},
    {0},
};
