/* Disentangled attention with AVX-512 BF16 (He et al. 2021). Takes float32 and bfloat16; tables are used as they lie. */
#include "../../levels.h"
#include "../vector.h"
#include "attention_bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

typedef bf16 number;
enum { IN_STEPS = 0 };
#include "../../any_width/disentangled.h"

/* Add c2p and p2c, as far as there are, to the scores of n queries; buckets are those of the first query and
 * key. The largest by lane are in top. */
INLINE void add_positions(int n, int c2p, int p2c, const struct arrays *s, struct products of, size_t block, size_t in_chunk,
                          const int32_t *buckets, size_t length, size_t keys, __m512 *top) {
    float *scores = s->scores + block * keys;
    const float *by_key = s->p2c + (in_chunk + block) * s->p2c_width;
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            __m512 score = _mm512_loadu_ps(scores + i * keys + j);
            const int32_t *of_query = buckets + j - (block + i);
            if (c2p) score = _mm512_add_ps(score, by_bucket(of, block + i, of_query, of_query[15]));
            if (p2c) score = _mm512_add_ps(score, _mm512_loadu_ps(by_key + i * s->p2c_width + j));
            _mm512_storeu_ps(scores + i * keys + j, score);
            top[i] = _mm512_mask_max_ps(top[i], lanes(length - j), top[i], score);
        }
}

/* The weights of n queries. */
INLINE void weigh(int n, int c2p, int p2c, const struct arrays *s, struct products of, size_t block, size_t in_chunk,
                  const int32_t *buckets, size_t length, size_t keys, float *inverse) {
    __m512 top[QUERIES];
    add_positions(n, c2p, p2c, s, of, block, in_chunk, buckets, length, keys, top);
    weights_of(n, s->scores + block * keys, top, length, keys, s->p + block * keys, inverse + block);
}

/* A head with its tables and scratch memory. */
struct work {
    const struct disentangled *d;
    struct head head;
    struct arrays scratch;
    struct table by_query, by_key; /* data is NULL where there is none */
    const float *position_bias;
};

/* The queries from row up to end, of which there are at most QUERIES; begin: the first of their chunk. */
INLINE void attend_block(const struct work *w, size_t begin, size_t row, size_t end, int c2p, int p2c) {
    const struct attention *a = &w->d->attention;
    const struct arrays *s = &w->scratch;
    const size_t n = end - row, length = w->head.length, keys = padded(length), in_chunk = row - begin;
    const int32_t *rising = w->d->rising + w->d->middle + row, *falling = w->d->falling + w->d->middle - row;
    const size_t first = (size_t)(rising + 1)[-(ptrdiff_t)keys];
    copy_rows(w->head.q, row, n, a->head, s->q);
    fetch_rows(w->head.q, a->head, end, QUERIES, w->head.queries);
    scores_of(n, s->q, s->k, a->head, keys, 0, keys, s->scores);
    const struct products of = w->position_bias ? (struct products){w->position_bias, NULL, 0, 0}
                                                : products_with(w->by_query, first, s->c2p, s->c2p_width);
    if (w->by_query.data) bucket_products(a->head, n, s->q, w->by_query, first, (size_t)rising[n - 1], s->c2p, s->c2p_width);
    float inverse[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) weigh(3, c2p, p2c, s, of, i, in_chunk, falling, length, keys, inverse);
    for (; i < n; i++) weigh(1, c2p, p2c, s, of, i, in_chunk, falling, length, keys, inverse);
    gemm(n, s->p, keys, s->v, a->head, keys / 2, s->scores); /* the scores have been read */
    store_context(a, s->scores, inverse, n, w->head.y + row * a->heads * a->head);
}

INLINE void attend_chunk(const struct work *w, size_t begin, size_t end) {
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES, keys = padded(w->head.length);
    if (w->by_key.data)
        for (size_t key = 0; key < keys; key += KEYS)
            score_by_keys(w->d, &w->scratch, w->by_key, key, begin, queries);
    for (size_t b = 0; b < blocks; b++) {
        const size_t row = begin + b * queries / blocks, next = begin + (b + 1) * queries / blocks;
        if (!w->by_key.data) attend_block(w, begin, row, next, 1, 0);
        else if (!w->by_query.data) attend_block(w, begin, row, next, 0, 1);
        else attend_block(w, begin, row, next, 1, 1);
    }
}

INLINE void pack(const struct work *w) {
    const struct arrays *s = &w->scratch;
    const struct head *h = &w->head;
    const size_t length = h->length, keys = padded(length), head = h->a->head;
    const struct rows rows = {(const char *)s->rows, head, BFLOAT16};
    if (w->by_key.data) {
        copy_rows(h->k, 0, length, head, s->rows);
        memset(s->rows + length * head, 0, (keys - length) * head * sizeof *s->rows);
        pack_keys(rows, length, keys, head, s->k);
    } else pack_keys(h->k, length, keys, head, s->k);
    pack_values(h->v, length, keys, head, s->v);
}

INLINE void attend(const struct disentangled *d, const struct arrays *s, size_t text, size_t of_head, enum format format) {
    const struct attention *a = &d->attention;
    const size_t table = of_head * a->head * d->columns;
    struct work w = {.d = d, .head = head_of(a, text * a->heads + of_head, format), .scratch = *s};
    const size_t queries = w.head.queries, chunk = chunk_of(queries, s->chunk);
    if (d->position_key) w.by_query = (struct table){d->position_key + table, d->columns, 0, NULL};
    if (d->position_query) w.by_key = (struct table){d->position_query + table, d->columns, 0, NULL};
    if (d->position_bias) w.position_bias = d->position_bias + of_head * d->columns;
    if (queries) {
        const int32_t *here = d->rising + d->middle;
        const size_t first = (size_t)(here + 1)[-(ptrdiff_t)w.head.length], last = (size_t)here[queries - 1];
        fetch_columns(d, w.by_key.data, first, last), fetch_columns(d, w.by_query.data, first, last);
        pack(&w);
    }
    for (size_t begin = 0; begin < queries; begin += chunk)
        attend_chunk(&w, begin, queries - begin < chunk ? queries : begin + chunk);
    store_padding(a, a->queries - queries, w.head.y + queries * a->heads * a->head);
}

static void disentangled_unit(void *operation, size_t unit) {
    struct disentangled *d = operation;
    const struct attention *a = &d->attention;
    const size_t slot = take_slot(&d->free), text = unit % a->batch, head = unit / a->batch;
    const struct arrays scratch = arrays_of(d, (uintptr_t)a->scratch + slot * disentangled_scratch(a));
    if (a->format == FLOAT32) attend(d, &scratch, text, head, FLOAT32);
    else attend(d, &scratch, text, head, BFLOAT16);
    give_slot(&d->free, slot);
}

END_TARGET

const struct kernel disentangled_avx512bf16 = {.unit = disentangled_unit, .scratch = disentangled_scratch, .cost = 1 / 60.0};
