/* Disentangled attention with AVX-512 BF16 (He et al. 2021). Takes float32 and bfloat16; tables are used as they lie. */
#include "../../levels.h"
#include "../vector.h"
#include "attention_bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

typedef bf16 number;
enum { IN_STEPS = 0 };
#include "../../any_width/disentangled.h"

/* Add what positions add to the scores of n queries of a block, from one on. The largest by lane are in top. */
INLINE void add_positions(int n, size_t from, const struct positions *p, float *scores, size_t length, size_t keys, __m512 *top) {
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const size_t row = from + (size_t)i;
            __m512 score = _mm512_add_ps(_mm512_loadu_ps(scores + row * keys + j), c2p_of(p, row, j));
            score = _mm512_add_ps(score, _mm512_loadu_ps(p->p2c + row * p->p2c_width + j));
            _mm512_storeu_ps(scores + row * keys + j, score);
            top[i] = _mm512_mask_max_ps(top[i], lanes(length - j), top[i], score);
        }
}

/* The weights of n queries of a block, from one on. */
INLINE void weigh(int n, size_t from, const struct positions *p, const struct arrays *s, size_t length, size_t keys,
                  float *inverse) {
    __m512 top[QUERIES];
    add_positions(n, from, p, s->scores, length, keys, top);
    weights_of(n, s->scores + from * keys, top, length, keys, s->p + from * keys, inverse + from);
}

/* A head with its tables and scratch memory. */
struct work {
    const struct disentangled *d;
    struct head head;
    struct arrays scratch;
    struct tables tables;
};

/* The queries from row up to end, of which there are at most QUERIES; begin: the first of their chunk. */
INLINE void attend_block(const struct work *w, size_t begin, size_t row, size_t end) {
    const struct attention *a = &w->d->attention;
    const struct arrays *s = &w->scratch;
    const size_t n = end - row, length = w->head.length, keys = padded(length);
    copy_rows(w->head.q, row, n, a->head, s->q);
    fetch_rows(w->head.q, a->head, end, QUERIES, w->head.queries);
    scores_of(n, s->q, s->k, a->head, keys, 0, keys, s->scores);
    const struct positions p = positions_of(w->d, &w->tables, s, begin, row, n, keys);
    float inverse[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) weigh(3, i, &p, s, length, keys, inverse);
    for (; i < n; i++) weigh(1, i, &p, s, length, keys, inverse);
    gemm(n, s->p, keys, s->v, a->head, keys / 2, s->scores); /* the scores have been read */
    store_context(a, s->scores, inverse, n, w->head.y + row * a->heads * a->head);
}

INLINE void attend_chunk(const struct work *w, size_t begin, size_t end) {
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES, keys = padded(w->head.length);
    for (size_t key = 0; w->tables.by_key.data && key < keys; key += KEYS)
        score_by_keys(w->d, &w->scratch, w->tables.by_key, key, begin, queries);
    for (size_t b = 0; b < blocks; b++)
        attend_block(w, begin, begin + b * queries / blocks, begin + (b + 1) * queries / blocks);
}

INLINE void pack(const struct work *w) {
    const struct arrays *s = &w->scratch;
    const struct head *h = &w->head;
    const size_t length = h->length, keys = padded(length), head = h->a->head;
    const struct rows rows = {(const char *)s->rows, head, BFLOAT16};
    if (w->tables.by_key.data) {
        copy_rows(h->k, 0, length, head, s->rows);
        memset(s->rows + length * head, 0, (keys - length) * head * sizeof *s->rows);
        pack_keys(rows, length, keys, head, s->k);
    } else pack_keys(h->k, length, keys, head, s->k);
    pack_values(h->v, length, keys, head, s->v);
}

INLINE void attend(const struct disentangled *d, const struct arrays *s, size_t text, size_t of_head, enum format format) {
    const struct attention *a = &d->attention;
    const struct head of = head_of(a, text * a->heads + of_head, format);
    const struct work w = {.d = d, .head = of, .scratch = *s, .tables = tables_of(d, of_head)};
    const size_t queries = w.head.queries, chunk = chunk_of(queries, s->chunk);
    if (queries) {
        const int32_t *here = d->rising + d->middle;
        const size_t first = (size_t)(here + 1)[-(ptrdiff_t)w.head.length], last = (size_t)here[queries - 1];
        fetch_columns(d, w.tables.by_key.data, first, last), fetch_columns(d, w.tables.by_query.data, first, last);
        clear_absent(d, s);
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
