/* Attention with AVX-512 BF16: products in bfloat16 (vdpbf16ps), sums and softmax in float32. Takes float32 and bfloat16.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax and the sum of values.
 */
#include <string.h>

#include "../../any_width/attention.h"
#include "../../levels.h"
#include "../avx512.h"
#include "../bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

static const float LOG2_E = 1.44269504f;
enum { QUERIES = 6, COLUMNS = 64 }; /* rows of scores at a time, and keys: 24 of the 32 registers are sums */

static size_t larger(size_t x, size_t y) { return x > y ? x : y; }
static size_t panel_width(size_t first, size_t keys) { return keys - first < COLUMNS ? keys - first : COLUMNS; }

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
    s.p = (bf16 *)(s.scores + QUERIES * larger(row, a->head));
    s.q = s.p + QUERIES * row;
    return s;
}

static size_t attention_scratch(const struct attention *a) {
    const size_t keys = most_packed(a, a->keys), row = longest_row(a, QUERIES, a->keys);
    const size_t bytes = 2 * (2 * keys * a->head + QUERIES * row + QUERIES * a->head) + 4 * QUERIES * larger(row, a->head);
    return (bytes + 63) / 64 * 64;
}

/* A head's part of a matrix [tokens, hidden] in one of the formats. */
struct rows {
    const char *data;
    size_t stride; /* numbers from one row to the next */
    enum format format;
};
INLINE size_t size_of(enum format format) { return format == FLOAT32 ? 4 : 2; }
INLINE const void *number_at(struct rows m, size_t row, size_t i) { return m.data + (row * m.stride + i) * size_of(m.format); }

/* 16 numbers of a row from i on, as bfloat16. */
INLINE __m256i load16(struct rows m, size_t row, size_t i) {
    const void *p = number_at(m, row, i);
    return m.format == FLOAT32 ? to_bf16(_mm512_loadu_ps(p)) : _mm256_loadu_si256(p);
}

/* 32 of them, or 16 and zeros. */
INLINE __m512i load32(struct rows m, size_t row, size_t i, int all) {
    const void *p = number_at(m, row, i);
    if (m.format == BFLOAT16) return _mm512_maskz_loadu_epi16(all ? 0xFFFFFFFF : 0xFFFF, p);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(all ? 0xFFFF : 0, (const float *)p + 16), _mm512_loadu_ps(p));
}

INLINE void fetch_rows(struct rows m, size_t head, size_t row, size_t rows, size_t last) {
    fetch(m.data, m.stride * size_of(m.format), head * size_of(m.format), row, rows, last);
}

/* Pack the keys of one head; those from length up to keys are 0. */
INLINE void pack_keys(struct rows k, size_t length, size_t keys, size_t head, bf16 *out) {
    for (size_t first = 0; first < keys; first += 16) {
        const size_t panel = first / COLUMNS * COLUMNS, width = panel_width(panel, keys);
        bf16 *to = out + panel * head + 2 * (first - panel);
        fetch_rows(k, head, first + 16, 16, length);
        for (size_t d = 0; d < head; d += 32) {
            const int all = d + 16 < head;
            __m512i rows[16];
            for (size_t i = 0; i < 16; i++)
                rows[i] = first + i < length ? load32(k, first + i, d, all) : _mm512_setzero_si512();
            transpose(rows);
            for (size_t j = 0; j < (all ? 16 : 8); j++) _mm512_storeu_si512(to + (d + 2 * j) * width, rows[j]);
        }
    }
}

/* Pack the values of one head, likewise. */
INLINE void pack_values(struct rows v, size_t length, size_t keys, size_t head, bf16 *out) {
    const __m256i zero = _mm256_setzero_si256();
    for (size_t i = 0; i < keys; i += 2) {
        fetch_rows(v, head, i + 16, 2, length);
        for (size_t d = 0; d < head; d += 16) {
            const __m256i even = i < length ? load16(v, i, d) : zero, odd = i + 1 < length ? load16(v, i + 1, d) : zero;
            const __m512i low = _mm512_cvtepu16_epi32(even), high = _mm512_cvtepu16_epi32(odd);
            _mm512_storeu_si512(out + i * head + 2 * d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

/* The pair at p, in every lane. */
INLINE __m512bh pair(const bf16 *p) {
    int32_t value;
    memcpy(&value, p, 4);
    return (__m512bh)_mm512_set1_epi32(value);
}

/* sums[i][j] = a[i] b for n rows of a, [n, 2 pairs], and m registers of columns of b, [pairs, columns, 2]. */
INLINE void gemm_sums(int n, int m, const bf16 *a, size_t stride, const bf16 *b, size_t columns, size_t pairs,
                      __m512 sums[][4]) {
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) sums[i][j] = _mm512_setzero_ps();
    for (size_t k = 0; k < pairs; k++, a += 2, b += 2 * columns) {
        __m512bh right[4];
        UNROLL(4)
        for (int j = 0; j < m; j++) right[j] = (__m512bh)_mm512_loadu_si512(b + 32 * j);
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const __m512bh left = pair(a + i * stride);
            UNROLL(4)
            for (int j = 0; j < m; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], left, right[j]);
        }
    }
}

/* c [n, 16 m] = a b, by gemm_sums; c has rows of width numbers. */
#define GEMM_OF(n, m)                                                                                                 \
    static __attribute__((noinline)) void gemm_##n##_##m(const bf16 *a, size_t stride, const bf16 *b, size_t columns, \
                                                         size_t pairs, float *c, size_t width) {                      \
        __m512 sums[QUERIES][4];                                                                                      \
        gemm_sums(n, m, a, stride, b, columns, pairs, sums);                                                          \
        UNROLL(6) for (int i = 0; i < n; i++)                                                                         \
            UNROLL(4) for (int j = 0; j < m; j++) _mm512_storeu_ps(c + i * width + 16 * j, sums[i][j]);               \
    }
#define GEMMS_OF(n) GEMM_OF(n, 1) GEMM_OF(n, 2) GEMM_OF(n, 3) GEMM_OF(n, 4)
GEMMS_OF(1) GEMMS_OF(2) GEMMS_OF(3) GEMMS_OF(4) GEMMS_OF(5) GEMMS_OF(6)
typedef void gemm_of(const bf16 *, size_t, const bf16 *, size_t, size_t, float *, size_t);
#define EACH(n) {0, gemm_##n##_1, gemm_##n##_2, gemm_##n##_3, gemm_##n##_4}
static gemm_of *const GEMM[QUERIES + 1][5] = {{0}, EACH(1), EACH(2), EACH(3), EACH(4), EACH(5), EACH(6)};

/* c [n, columns] = a [n, 2 pairs] b [pairs, columns, 2]. */
static void gemm(size_t n, const bf16 *a, size_t stride, const bf16 *b, size_t columns, size_t pairs, float *c) {
    for (size_t j = 0; j < columns; j += 64) {
        const size_t registers = columns - j < 64 ? (columns - j) / 16 : 4;
        GEMM[n][registers](a, stride, b + 2 * j, columns, pairs, c + j, columns);
    }
}

/* The scores of n queries for so many of the packed keys from first on. */
static void scores_of(size_t n, const struct scratch *s, size_t head, size_t keys, size_t first, size_t count) {
    for (size_t j = first, end = first + count, some; j < end; j += some) {
        const size_t panel = j / COLUMNS * COLUMNS, width = panel_width(panel, keys);
        some = (panel + width < end ? panel + width : end) - j;
        GEMM[n][some / 16](s->q, head, s->k + panel * head + 2 * (j - panel), width, head / 2, s->scores + j - first, count);
    }
}

/* p = exp(score - largest) for the keys of n queries, 0 beyond length, and inverse = 1 / sum of p. Queries go side by side, so
 * that none waits for the steps of another. */
INLINE void softmax(int n, const float *scores, size_t length, size_t keys, bf16 *p, float *inverse) {
    __m512 top[QUERIES], total[QUERIES];
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(-INFINITY), total[i] = _mm512_setzero_ps();
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++)
            top[i] = _mm512_mask_max_ps(top[i], lanes(length - j), top[i], _mm512_loadu_ps(scores + i * keys + j));
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(_mm512_reduce_max_ps(top[i]) * LOG2_E);
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const __m512 score = _mm512_fmsub_ps(_mm512_loadu_ps(scores + i * keys + j), _mm512_set1_ps(LOG2_E), top[i]);
            const __m512 e = _mm512_maskz_mov_ps(lanes(length - j), exp2_ps(score));
            total[i] = _mm512_add_ps(total[i], e);
            _mm256_storeu_si256((__m256i *)(p + i * keys + j), to_bf16(e));
        }
    UNROLL(6)
    for (int i = 0; i < n; i++) inverse[i] = 1.0f / _mm512_reduce_add_ps(total[i]);
}

/* The weighted sum of the values of n queries, from row on, in the format that is wanted. */
static void store_context(const struct attention *a, const float *context, const float *inverse, size_t n, size_t at) {
    const size_t hidden = a->heads * a->head;
    for (size_t i = 0; i < n; i++, at += hidden, context += a->head)
        for (size_t d = 0; d < a->head; d += 16) {
            const __m512 y = _mm512_mul_ps(_mm512_loadu_ps(context + d), _mm512_set1_ps(inverse[i]));
            if (a->y16) store_bf16(a->y16 + at + d, 0xFFFF, y);
            else _mm_storeu_si128((__m128i *)(a->y8 + at + d), round_ps(y, a->rounding));
        }
}

static void store_padding(const struct attention *a, size_t rows, size_t at) {
    for (size_t hidden = a->heads * a->head; rows--; at += hidden) {
        if (a->y16) memset(a->y16 + at, 0, a->head * sizeof *a->y16);
        else memset(a->y8 + at, a->rounding.zero_point, a->head);
    }
}

/* The parts of unit's head in its text's queries, or keys or values, of so many rows a text. */
INLINE struct rows rows_of(const struct attention *a, const void *matrix, size_t rows, size_t unit, enum format format) {
    struct rows m = {.stride = a->heads * a->head, .format = format};
    m.data = (const char *)matrix + (unit / a->heads * rows * m.stride + unit % a->heads * a->head) * size_of(format);
    return m;
}

INLINE struct rows rows_from(struct rows m, size_t row) {
    m.data = number_at(m, row, 0);
    return m;
}

/* One head of one text. */
struct head {
    const struct attention *a;
    struct rows q, k, v;
    struct scratch scratch;
    size_t queries, length, y; /* without padding; y: where its results begin */
};

/* The queries from row up to end, of which there are at most QUERIES; the keys of a span are packed. */
INLINE void attend_block(const struct head *h, struct span packed, size_t row, size_t end) {
    const struct attention *a = h->a;
    const struct scratch *s = &h->scratch;
    const struct span span = span_of(a, row, end, h->length);
    const size_t n = end - row, first = span.first - packed.first, wide = span.row, seen = span.last - span.first;
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < a->head; d += 16)
            _mm256_storeu_si256((__m256i *)(s->q + i * a->head + d), load16(h->q, row + i, d));
    fetch_rows(h->q, a->head, end, QUERIES, h->queries);
    scores_of(n, s, a->head, packed.row, first, wide);
    hide(a, span, row, end, s->scores);
    float inverse[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) softmax(3, s->scores + i * wide, seen, wide, s->p + i * wide, inverse + i);
    for (; i < n; i++) softmax(1, s->scores + i * wide, seen, wide, s->p + i * wide, inverse + i);
    gemm(n, s->p, wide, s->v + first * a->head, a->head, wide / 2, s->scores); /* the scores have been read */
    store_context(a, s->scores, inverse, n, h->y + row * a->heads * a->head);
}

/* The queries from begin up to end, in blocks of equal size, or one apart. */
INLINE void attend_chunk(const struct head *h, size_t begin, size_t end) {
    const struct span span = span_of(h->a, begin, end, h->length);
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES;
    pack_keys(rows_from(h->k, span.first), span.last - span.first, span.row, h->a->head, h->scratch.k);
    pack_values(rows_from(h->v, span.first), span.last - span.first, span.row, h->a->head, h->scratch.v);
    for (size_t b = 0; b < blocks; b++)
        attend_block(h, span, begin + b * queries / blocks, begin + (b + 1) * queries / blocks);
}

INLINE void attend(const struct attention *a, size_t unit, enum format format) {
    const size_t text = unit / a->heads, hidden = a->heads * a->head;
    struct head h = {.a = a, .length = a->keys, .y = text * a->queries * hidden + unit % a->heads * a->head};
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < a->keys) h.length = (size_t)a->lengths[text];
    h.queries = a->queries == a->keys || !h.length ? h.length : a->queries;
    h.scratch = scratch_arrays(a, a->scratch + unit * attention_scratch(a));
    h.q = rows_of(a, a->q, a->queries, unit, format);
    h.k = rows_of(a, a->k, a->keys, unit, format), h.v = rows_of(a, a->v, a->keys, unit, format);
    for (size_t begin = 0, end; begin < h.queries; begin = end) attend_chunk(&h, begin, end = chunk_end(a, begin, h.queries));
    store_padding(a, a->queries - h.queries, h.y + h.queries * hidden);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    if (a->format == FLOAT32) attend(a, unit, FLOAT32);
    else attend(a, unit, BFLOAT16);
}

END_TARGET

const struct kernel attention_avx512bf16 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 60.0};
