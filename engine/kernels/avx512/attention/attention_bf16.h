/* The parts of attention in bfloat16: rows of a head, packed keys and values, the blocks of products, softmax, and the end.
 *
 * A kernel of attention includes this file. Sums are in one order, pair by pair, whatever block a number is in.
 */
#ifndef FUSEDBERT_ATTENTION_BF16_H
#define FUSEDBERT_ATTENTION_BF16_H

#include <string.h>

#include "../../any_width/attention.h"
#include "../avx512.h"
#include "../bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

static const float LOG2_E = 1.44269504f;
enum { QUERIES = 6, REGISTERS = 4, COLUMNS = 64 }; /* rows of scores at a time, and keys: 24 of the 32 registers are sums */

INLINE size_t panel_width(size_t first, size_t keys) { return keys - first < COLUMNS ? keys - first : COLUMNS; }

/* A head's part of a matrix [tokens, hidden] in one of the formats. */
struct rows {
    const char *data;
    size_t stride; /* numbers from one row to the next */
    enum format format;
};
INLINE size_t bytes_of(enum format format) { return format == FLOAT32 ? 4 : 2; }
INLINE const void *number_at(struct rows m, size_t row, size_t i) { return m.data + (row * m.stride + i) * bytes_of(m.format); }

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
    fetch(m.data, m.stride * bytes_of(m.format), head * bytes_of(m.format), row, rows, last);
}

/* Copy n rows from one on as bfloat16, [n, head]. */
INLINE void copy_rows(struct rows m, size_t row, size_t n, size_t head, bf16 *out) {
    for (; n--; row++, out += head)
        for (size_t d = 0; d < head; d += 16) _mm256_storeu_si256((__m256i *)(out + d), load16(m, row, d));
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

/* The scores of n queries, [n, head], for count of the packed keys from first on. */
static void scores_of(size_t n, const bf16 *q, const bf16 *k, size_t head, size_t keys, size_t first, size_t count, float *scores) {
    for (size_t j = first, end = first + count, some; j < end; j += some) {
        const size_t panel = j / COLUMNS * COLUMNS, width = panel_width(panel, keys);
        some = (panel + width < end ? panel + width : end) - j;
        GEMM[n][some / 16](q, head, k + panel * head + 2 * (j - panel), width, head / 2, scores + j - first, count);
    }
}

/* The largest scores of n queries, by lane; only the keys up to length count. */
INLINE void largest_scores(int n, const float *scores, size_t length, size_t keys, __m512 *top) {
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++)
            top[i] = _mm512_mask_max_ps(top[i], lanes(length - j), top[i], _mm512_loadu_ps(scores + i * keys + j));
}

/* p = exp(score - largest) for the keys of n queries, 0 beyond length, and inverse = 1 / sum of p; top: largest_scores. Queries go
 * side by side, so that none waits for the steps of another. */
INLINE void weights_of(int n, const float *scores, __m512 *top, size_t length, size_t keys, bf16 *p, float *inverse) {
    __m512 total[QUERIES];
    UNROLL(6)
    for (int i = 0; i < n; i++) {
        total[i] = _mm512_setzero_ps();
        top[i] = _mm512_set1_ps(_mm512_reduce_max_ps(top[i]) * LOG2_E);
    }
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
    m.data = (const char *)matrix + (unit / a->heads * rows * m.stride + unit % a->heads * a->head) * bytes_of(format);
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
    size_t queries, length, y; /* without padding; y: where its results begin */
};

INLINE struct head head_of(const struct attention *a, size_t unit, enum format format) {
    const size_t text = unit / a->heads, hidden = a->heads * a->head;
    struct head h = {.a = a, .length = a->keys, .y = text * a->queries * hidden + unit % a->heads * a->head};
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < a->keys) h.length = (size_t)a->lengths[text];
    h.queries = a->queries == a->keys || !h.length ? h.length : a->queries;
    h.q = rows_of(a, a->q, a->queries, unit, format);
    h.k = rows_of(a, a->k, a->keys, unit, format), h.v = rows_of(a, a->v, a->keys, unit, format);
    return h;
}

END_TARGET

#endif
