/* Attention with AVX-512 BF16: products in bfloat16 (vdpbf16ps), sums and softmax in float32. Takes float32 and bfloat16.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax and the sum of values.
 */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "avx512.h"
#include "bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

static const float LOG2_E = 1.44269504f;
enum { QUERIES = 6 }; /* rows of scores at a time: 24 of the 32 registers are sums */

/* Keys are counted in blocks of 16, so that their scores fill registers. */
static size_t padded(size_t keys) { return (keys + 15) / 16 * 16; }

/* Length of a row that holds first the scores and then the weighted sum of the values. */
static size_t row_size(const struct attention *a, size_t keys) { return keys > a->head ? keys : a->head; }

/* The arrays in the scratch memory of a head. */
struct scratch {
    bf16 *k;       /* [head / 2, keys, 2]: pairs of a key's numbers, keys side by side */
    bf16 *v;       /* [keys / 2, head, 2]: pairs of keys, a key's numbers side by side */
    float *scores; /* [QUERIES, keys], and then [QUERIES, head] */
    bf16 *p;       /* [QUERIES, keys]: exp(score - largest) */
    bf16 *q;       /* [QUERIES, head] */
};

static struct scratch scratch_arrays(const struct attention *a, char *memory, size_t keys) {
    struct scratch s;
    s.k = (bf16 *)memory;
    s.v = s.k + keys * a->head;
    s.scores = (float *)(s.v + keys * a->head);
    s.p = (bf16 *)(s.scores + QUERIES * row_size(a, keys));
    s.q = s.p + QUERIES * keys;
    return s;
}

static size_t attention_scratch(const struct attention *a) {
    const size_t keys = padded(a->keys);
    const size_t bytes = 2 * (2 * keys * a->head + QUERIES * keys + QUERIES * a->head) + 4 * QUERIES * row_size(a, keys);
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

/* Pack the keys of one head; those from length up to keys are 0. */
INLINE void pack_keys(struct rows k, size_t length, size_t keys, size_t head, bf16 *out) {
    for (size_t first = 0; first < keys; first += 16)
        for (size_t d = 0; d < head; d += 32) {
            const int all = d + 16 < head;
            __m512i rows[16];
            for (size_t i = 0; i < 16; i++)
                rows[i] = first + i < length ? load32(k, first + i, d, all) : _mm512_setzero_si512();
            transpose(rows);
            for (size_t j = 0; j < (all ? 16 : 8); j++) _mm512_storeu_si512(out + ((d / 2 + j) * keys + first) * 2, rows[j]);
        }
}

/* Pack the values of one head, likewise. */
INLINE void pack_values(struct rows v, size_t length, size_t keys, size_t head, bf16 *out) {
    const __m256i zero = _mm256_setzero_si256();
    for (size_t i = 0; i < keys; i += 2)
        for (size_t d = 0; d < head; d += 16) {
            const __m256i even = i < length ? load16(v, i, d) : zero, odd = i + 1 < length ? load16(v, i + 1, d) : zero;
            const __m512i low = _mm512_cvtepu16_epi32(even), high = _mm512_cvtepu16_epi32(odd);
            _mm512_storeu_si512(out + i * head + 2 * d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
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

INLINE void attend(const struct attention *a, size_t unit, enum format format) {
    const size_t text = unit / a->heads, hidden = a->heads * a->head;
    size_t length = a->keys;
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < length) length = (size_t)a->lengths[text];
    const size_t keys = padded(length), queries = a->queries == a->keys || !length ? length : a->queries;
    const struct scratch s = scratch_arrays(a, a->scratch + unit * attention_scratch(a), keys);
    const struct rows q = rows_of(a, a->q, a->queries, unit, format);
    const size_t y = text * a->queries * hidden + unit % a->heads * a->head; /* where the results begin */
    pack_keys(rows_of(a, a->k, a->keys, unit, format), length, keys, a->head, s.k);
    pack_values(rows_of(a, a->v, a->keys, unit, format), length, keys, a->head, s.v);
    const size_t blocks = (queries + QUERIES - 1) / QUERIES;
    for (size_t b = 0, row = 0; b < blocks; b++) {
        const size_t end = (b + 1) * queries / blocks, n = end - row;
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < a->head; d += 16)
                _mm256_storeu_si256((__m256i *)(s.q + i * a->head + d), load16(q, row + i, d));
        gemm(n, s.q, a->head, s.k, keys, a->head / 2, s.scores);
        float inverse[QUERIES];
        size_t i = 0;
        for (; i + 3 <= n; i += 3) softmax(3, s.scores + i * keys, length, keys, s.p + i * keys, inverse + i);
        for (; i < n; i++) softmax(1, s.scores + i * keys, length, keys, s.p + i * keys, inverse + i);
        gemm(n, s.p, keys, s.v, a->head, keys / 2, s.scores); /* the scores have been read */
        store_context(a, s.scores, inverse, n, y + row * hidden);
        row = end;
    }
    store_padding(a, a->queries - queries, y + queries * hidden);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    if (a->format == FLOAT32) attend(a, unit, FLOAT32);
    else attend(a, unit, BFLOAT16);
}

END_TARGET

const struct kernel attention_avx512bf16 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 60.0};
