/* Attention with AVX-512 BF16: products in bfloat16 (vdpbf16ps), sums and softmax in float32.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax and the sum of values.
 */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

enum { QUERIES = 6 }; /* rows of scores at a time: 24 of the 32 registers are sums */

typedef uint16_t bf16;

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

INLINE __m256i to_bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

/* 16 rows of 16 pairs to 16 columns: rows[i] lane j becomes rows[j] lane i. */
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Pack the keys of one head; those from length up to keys are 0. */
static void pack_keys(const float *k, size_t stride, size_t length, size_t keys, size_t head, bf16 *out) {
    for (size_t first = 0; first < keys; first += 16)
        for (size_t d = 0; d < head; d += 32) {
            const __mmask16 second = d + 16 < head ? 0xFFFF : 0;
            __m512i rows[16];
            for (size_t i = 0; i < 16; i++) {
                const float *row = k + (first + i) * stride + d;
                if (first + i >= length) rows[i] = _mm512_setzero_si512();
                else rows[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(second, row + 16), _mm512_loadu_ps(row));
            }
            transpose(rows);
            for (size_t j = 0; j < (second ? 16 : 8); j++)
                _mm512_storeu_si512(out + ((d / 2 + j) * keys + first) * 2, rows[j]);
        }
}

/* Pack the values of one head, likewise. */
static void pack_values(const float *v, size_t stride, size_t length, size_t keys, size_t head, bf16 *out) {
    const __m512 zero = _mm512_setzero_ps();
    for (size_t i = 0; i < keys; i += 2)
        for (size_t d = 0; d < head; d += 16) {
            const __m512 even = i < length ? _mm512_loadu_ps(v + i * stride + d) : zero;
            const __m512 odd = i + 1 < length ? _mm512_loadu_ps(v + (i + 1) * stride + d) : zero;
            const __m512i low = _mm512_cvtepu16_epi32(to_bf16(even)), high = _mm512_cvtepu16_epi32(to_bf16(odd));
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

/* p = exp(score - largest score) for one query's keys, 0 beyond length; returns 1 / sum of p. */
static float softmax(const float *scores, size_t length, size_t keys, bf16 *p) {
    __m512 largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (size_t j = 0; j < keys; j += 16)
        largest = _mm512_mask_max_ps(largest, lanes(length - j), largest, _mm512_loadu_ps(scores + j));
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    for (size_t j = 0; j < keys; j += 16) {
        const __m512 e = _mm512_maskz_mov_ps(lanes(length - j), exp_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + j), top)));
        total = _mm512_add_ps(total, e);
        _mm256_storeu_si256((__m256i *)(p + j), to_bf16(e));
    }
    return 1.0f / _mm512_reduce_add_ps(total);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    const size_t text = unit / a->heads, head = unit % a->heads;
    const size_t hidden = a->heads * a->head, start = head * a->head;
    size_t length = a->keys;
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < length) length = (size_t)a->lengths[text];
    const size_t keys = padded(length), queries = a->queries == a->keys || !length ? length : a->queries;
    const struct scratch s = scratch_arrays(a, a->scratch + unit * attention_scratch(a), keys);
    const float *q = a->q + text * a->queries * hidden + start;
    uint8_t *y8 = a->y8 + text * a->queries * hidden + start;
    pack_keys(a->k + text * a->keys * hidden + start, hidden, length, keys, a->head, s.k);
    pack_values(a->v + text * a->keys * hidden + start, hidden, length, keys, a->head, s.v);
    const size_t blocks = (queries + QUERIES - 1) / QUERIES;
    for (size_t b = 0, row = 0; b < blocks; b++) {
        const size_t end = (b + 1) * queries / blocks, n = end - row;
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < a->head; d += 16)
                _mm256_storeu_si256((__m256i *)(s.q + i * a->head + d), to_bf16(_mm512_loadu_ps(q + (row + i) * hidden + d)));
        gemm(n, s.q, a->head, s.k, keys, a->head / 2, s.scores);
        float inverse[QUERIES];
        for (size_t i = 0; i < n; i++) inverse[i] = softmax(s.scores + i * keys, length, keys, s.p + i * keys);
        float *context = s.scores; /* [n, head]: the scores have been read */
        gemm(n, s.p, keys, s.v, a->head, keys / 2, context);
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < a->head; d += 16) {
                const __m512 c = _mm512_mul_ps(_mm512_loadu_ps(context + i * a->head + d), _mm512_set1_ps(inverse[i]));
                _mm_storeu_si128((__m128i *)(y8 + (row + i) * hidden + d), round_ps(c, a->rounding));
            }
        row = end;
    }
    for (size_t row = queries; row < a->queries; row++) /* padding */
        memset(y8 + row * hidden, a->rounding.zero_point, a->head);
}

END_TARGET

const struct kernel attention_avx512bf16 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 60.0};
