/* Attention with AVX-512 BF16: products in bfloat16 (vdpbf16ps), sums and softmax in float32. Takes float32 and bfloat16.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax and the sum of values.
 */
#include "../../levels.h"
#include "attention_bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

/* The arrays in the scratch memory of a head. */
struct scratch {
    bf16 *k;       /* in panels of COLUMNS keys, [head / 2, COLUMNS, 2]: pairs of a key's numbers, keys side by side */
    bf16 *v;       /* [keys / 2, head, 2]: pairs of keys, a key's numbers side by side */
    float *scores; /* [QUERIES, keys that are seen], and then [QUERIES, head]: the weighted sum of the values */
    bf16 *p;       /* [QUERIES, keys that are seen]: exp(score - largest) */
    bf16 *q;       /* [QUERIES, head] */
};

static struct scratch scratch_arrays(const struct attention *a, char *memory) {
    const size_t keys = most_packed(a, a->keys), row = longest_row(a, QUERIES, a->keys);
    struct scratch s;
    s.k = (bf16 *)memory;
    s.v = s.k + keys * a->head;
    s.scores = (float *)(s.v + keys * a->head);
    s.p = (bf16 *)(s.scores + QUERIES * longer(row, a->head));
    s.q = s.p + QUERIES * row;
    return s;
}

static size_t attention_scratch(const struct attention *a) {
    const size_t keys = most_packed(a, a->keys), row = longest_row(a, QUERIES, a->keys);
    const size_t bytes = 2 * (2 * keys * a->head + QUERIES * row + QUERIES * a->head) + 4 * QUERIES * longer(row, a->head);
    return (bytes + 63) / 64 * 64;
}

INLINE void softmax(int n, const float *scores, size_t length, size_t keys, bf16 *p, float *inverse) {
    __m512 top[QUERIES];
    largest_scores(n, scores, length, keys, top);
    weights_of(n, scores, top, length, keys, p, inverse);
}

/* The queries from row up to end, of which there are at most QUERIES; the keys of a span are packed. */
INLINE void attend_block(const struct head *h, const struct scratch *s, struct span packed, size_t row, size_t end) {
    const struct attention *a = h->a;
    const struct span span = span_of(a, row, end, h->length);
    const size_t n = end - row, first = span.first - packed.first, wide = span.row, seen = span.last - span.first;
    copy_rows(h->q, row, n, a->head, s->q);
    fetch_rows(h->q, a->head, end, QUERIES, h->queries);
    scores_of(n, s->q, s->k, a->head, packed.row, first, wide, s->scores);
    hide(a, span, row, end, s->scores);
    float inverse[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) softmax(3, s->scores + i * wide, seen, wide, s->p + i * wide, inverse + i);
    for (; i < n; i++) softmax(1, s->scores + i * wide, seen, wide, s->p + i * wide, inverse + i);
    gemm(n, s->p, wide, s->v + first * a->head, a->head, wide / 2, s->scores); /* the scores have been read */
    store_context(a, s->scores, inverse, n, h->y + row * a->heads * a->head);
}

/* The queries from begin up to end, in blocks of equal size, or one apart. */
INLINE void attend_chunk(const struct head *h, const struct scratch *s, size_t begin, size_t end) {
    const struct span span = span_of(h->a, begin, end, h->length);
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES;
    pack_keys(rows_from(h->k, span.first), span.last - span.first, span.row, h->a->head, s->k);
    pack_values(rows_from(h->v, span.first), span.last - span.first, span.row, h->a->head, s->v);
    for (size_t b = 0; b < blocks; b++)
        attend_block(h, s, span, begin + b * queries / blocks, begin + (b + 1) * queries / blocks);
}

INLINE void attend(const struct attention *a, size_t unit, enum format format) {
    const struct head h = head_of(a, unit, format);
    const struct scratch s = scratch_arrays(a, a->scratch + unit * attention_scratch(a));
    for (size_t begin = 0, end; begin < h.queries; begin = end)
        attend_chunk(&h, &s, begin, end = chunk_end(a, begin, h.queries));
    store_padding(a, a->queries - h.queries, h.y + h.queries * a->heads * a->head);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    if (a->format == FLOAT32) attend(a, unit, FLOAT32);
    else attend(a, unit, BFLOAT16);
}

END_TARGET

const struct kernel attention_avx512bf16 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 60.0};
