/* Dense in eight bits with AVX-512 VNNI: vpdpbusd adds four products of a uint8 and an int8 to each of 16 sums.
 *
 * A block of up to 14 rows by one panel has all its sums in registers over all inputs, then the epilogue scales, activates and
 * rounds them. 95 to 98 % of the processor's peak from 14 rows up: bench/NOTES.md.
 */
#include <string.h>

#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

enum { ROWS = 14 }; /* rows of a block: 28 of the 32 registers are sums */

/* The next four inputs of row i, in every lane. Rows are addressed in threes, [p], [p + stride] and [p + 2 stride]: with a
 * pointer for each of 14 rows the compiler would run out of registers. */
INLINE __m512i broadcast4(const uint8_t *const *threes, size_t stride, int i) {
    int32_t value;
    memcpy(&value, threes[i / 3] + (i % 3) * stride, 4);
    return _mm512_set1_epi32(value);
}

/* sums [n, PANEL] = x W for n rows of x and one panel of W. Prefetches as many bytes at next, which are needed afterwards. */
INLINE void gemm(int n, const uint8_t *x, size_t stride, const int8_t *w, size_t fours, const int8_t *next, int32_t *sums) {
    __m512i left[ROWS], right[ROWS]; /* all in registers: the loops below are unrolled */
    const uint8_t *threes[5];
    UNROLL(5)
    for (int j = 0; j < 5; j++) threes[j] = x + 3 * j * stride;
    UNROLL(16)
    for (int i = 0; i < n; i++) left[i] = right[i] = _mm512_setzero_si512();
    const int8_t *const end = w + 4 * PANEL * fours;
    const ptrdiff_t ahead = next - w;
    for (; w < end; w += 4 * PANEL) {
        const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
        _mm_prefetch((const char *)w + ahead, _MM_HINT_T1);
        _mm_prefetch((const char *)w + ahead + 64, _MM_HINT_T1);
        UNROLL(16)
        for (int i = 0; i < n; i++) {
            const __m512i a = broadcast4(threes, stride, i);
            left[i] = _mm512_dpbusd_epi32(left[i], a, w0);
            right[i] = _mm512_dpbusd_epi32(right[i], a, w1);
        }
        UNROLL(5)
        for (int j = 0; j < (n + 2) / 3; j++) {
            threes[j] += 4;
            __asm__("" : "+r"(threes[j])); /* one register each, not one shared index and a sum for every row */
        }
    }
    UNROLL(16)
    for (int i = 0; i < n; i++) {
        _mm512_store_si512(sums + PANEL * i, left[i]);
        _mm512_store_si512(sums + PANEL * i + 16, right[i]);
    }
}

/* A function for each number of rows, so that its sums stay in registers. */
typedef void gemm_of(const uint8_t *, size_t, const int8_t *, size_t, const int8_t *, int32_t *);
#define GEMM_OF(n)                                                                                                      \
    static __attribute__((noinline)) void gemm_##n(const uint8_t *x, size_t stride, const int8_t *w, size_t fours,      \
                                                   const int8_t *next, int32_t *sums) {                                 \
        gemm(n, x, stride, w, fours, next, sums);                                                                       \
    }
GEMM_OF(1) GEMM_OF(2) GEMM_OF(3) GEMM_OF(4) GEMM_OF(5) GEMM_OF(6) GEMM_OF(7)
GEMM_OF(8) GEMM_OF(9) GEMM_OF(10) GEMM_OF(11) GEMM_OF(12) GEMM_OF(13) GEMM_OF(14)
static gemm_of *const GEMM[ROWS + 1] = {
    0,      gemm_1, gemm_2,  gemm_3,  gemm_4,  gemm_5,  gemm_6, gemm_7,
    gemm_8, gemm_9, gemm_10, gemm_11, gemm_12, gemm_13, gemm_14,
};

/* Scale, activate and store the sums of n rows and 16 columns; columns beyond the last output are left out. */
INLINE void epilogue(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t column) {
    const __mmask16 some = lanes(d->outputs - column);
    const __m512i offset = _mm512_loadu_si512(d->offset + column);
    const __m512 scale = _mm512_maskz_loadu_ps(some, d->scale + column), bias = _mm512_maskz_loadu_ps(some, d->bias + column);
    size_t at = row * d->outputs + column;
    for (int i = 0; i < n; i++, at += d->outputs, sums += PANEL) {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums), offset));
        const __m512 y = activate_ps(_mm512_fmadd_ps(sum, scale, bias), kind);
        if (d->y) {
            if (some == 0xFFFF) _mm512_storeu_ps(d->y + at, y);
            else _mm512_mask_storeu_ps(d->y + at, some, y);
        } else {
            if (some == 0xFFFF) _mm_storeu_si128((__m128i *)(d->y8 + at), round_ps(y, d->rounding));
            else _mm_mask_storeu_epi8(d->y8 + at, some, round_ps(y, d->rounding));
        }
    }
}

static void epilogue_of_panel(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    for (size_t half = 0; half < 2; half++) {
        const size_t column = panel * PANEL + 16 * half;
        if (column >= d->outputs) return;
        switch (d->activation) {
            case IDENTITY: epilogue(d, IDENTITY, sums + 16 * half, n, row, column); break;
            case GELU: epilogue(d, GELU, sums + 16 * half, n, row, column); break;
            case GELU_TANH: epilogue(d, GELU_TANH, sums + 16 * half, n, row, column); break;
            case RELU: epilogue(d, RELU, sums + 16 * half, n, row, column); break;
        }
    }
}

static void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset) {
    const __m512i ones = _mm512_set1_epi8(1), by = _mm512_set1_epi32(zero_point);
    const int8_t *w = d->weight;
    for (size_t panel = 0; panel < dense_panels(d); panel++, offset += PANEL) {
        __m512i left = _mm512_setzero_si512(), right = left;
        for (size_t k = 0; k < d->inputs; k += 4, w += 4 * PANEL) {
            left = _mm512_dpbusd_epi32(left, ones, _mm512_loadu_si512(w));
            right = _mm512_dpbusd_epi32(right, ones, _mm512_loadu_si512(w + 64));
        }
        _mm512_storeu_si512(offset, _mm512_mullo_epi32(left, by));
        _mm512_storeu_si512(offset + 16, _mm512_mullo_epi32(right, by));
    }
}

/* Compute one panel's columns of y for the rows from first up to last. */
static void dense_panel(const struct dense *d, size_t panel, size_t first, size_t last) {
    _Alignas(64) int32_t sums[ROWS * PANEL];
    const size_t rows = last - first, blocks = (rows + ROWS - 1) / ROWS;
    const int8_t *weight = d->weight + panel * d->inputs * PANEL;
    const int8_t *next_panel = panel + 1 < dense_panels(d) ? weight + d->inputs * PANEL : weight;
    size_t row = first;
    for (size_t b = 0; b < blocks; b++) {
        const size_t end = first + (b + 1) * rows / blocks; /* blocks of equal size, or one row apart */
        const int n = (int)(end - row);
        const int8_t *next = b + 1 == blocks ? next_panel : weight;
        GEMM[n](d->x + row * d->inputs, d->inputs, weight, d->inputs / 4, next, sums);
        epilogue_of_panel(d, sums, n, row, panel);
        row = end;
    }
}

static void dense_unit(void *operation, size_t unit) {
    const struct dense *d = operation;
    const size_t panels = dense_panels(d), first = unit / panels * DENSE_ROWS;
    dense_panel(d, unit % panels, first, first + DENSE_ROWS < d->rows ? first + DENSE_ROWS : d->rows);
}

END_TARGET

const struct kernel dense_avx512vnni = {.unit = dense_unit, .offsets = dense_offsets, .cost = 1 / 230.0};
