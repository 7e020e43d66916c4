#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include "dense.h"

#include <string.h>

#include "simd.h"

/* The next four inputs of row i, in every lane. Rows are reached in threes, [p], [p + stride] and [p + 2 stride]: with a pointer
 * for each of 14 rows the compiler would run out of registers. */
INLINE __m512i four(const uint8_t *const *threes, size_t stride, int i) {
    int32_t value;
    memcpy(&value, threes[i / 3] + (i % 3) * stride, 4);
    return _mm512_set1_epi32(value);
}

/* Sum up n rows of one panel, sums [n, PANEL] = x W. What is wanted next is fetched from memory meanwhile. */
INLINE void products(int n, const uint8_t *x, size_t stride, const int8_t *w, size_t fours, const int8_t *next, int32_t *sums) {
    __m512i left[ROWS], right[ROWS]; /* all in registers: the loops below are unrolled */
    const uint8_t *threes[5];
#pragma GCC unroll 5
    for (int j = 0; j < 5; j++) threes[j] = x + 3 * j * stride;
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) left[i] = right[i] = _mm512_setzero_si512();
    const int8_t *const end = w + 4 * PANEL * fours;
    const ptrdiff_t ahead = next - w;
    for (; w < end; w += 4 * PANEL) {
        const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
        _mm_prefetch((const char *)w + ahead, _MM_HINT_T1);
        _mm_prefetch((const char *)w + ahead + 64, _MM_HINT_T1);
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) {
            const __m512i a = four(threes, stride, i);
            left[i] = _mm512_dpbusd_epi32(left[i], a, w0);
            right[i] = _mm512_dpbusd_epi32(right[i], a, w1);
        }
#pragma GCC unroll 5
        for (int j = 0; j < (n + 2) / 3; j++) {
            threes[j] += 4;
            __asm__("" : "+r"(threes[j])); /* one register each, not one shared index and a sum for every row */
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) {
        _mm512_store_si512(sums + PANEL * i, left[i]);
        _mm512_store_si512(sums + PANEL * i + 16, right[i]);
    }
}

typedef void products_of(const uint8_t *, size_t, const int8_t *, size_t, const int8_t *, int32_t *);
#define ROWS_OF(n)                                                                                                          \
    static __attribute__((noinline)) void products_##n(const uint8_t *x, size_t stride, const int8_t *w, size_t fours,      \
                                                       const int8_t *next, int32_t *sums) {                                 \
        products(n, x, stride, w, fours, next, sums);                                                                       \
    }
ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4) ROWS_OF(5) ROWS_OF(6) ROWS_OF(7)
ROWS_OF(8) ROWS_OF(9) ROWS_OF(10) ROWS_OF(11) ROWS_OF(12) ROWS_OF(13) ROWS_OF(14)
static products_of *const PRODUCTS[ROWS + 1] = {
    0,          products_1, products_2, products_3,  products_4,  products_5,  products_6, products_7,
    products_8, products_9, products_10, products_11, products_12, products_13, products_14,
};

/* Turn sums into numbers, 16 columns of n rows, and store those of columns that exist. */
INLINE void finish(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t column) {
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

static void finish_block(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    for (size_t half = 0; half < 2; half++) {
        const size_t column = panel * PANEL + 16 * half;
        if (column >= d->outputs) return;
        switch (d->activation) {
            case IDENTITY: finish(d, IDENTITY, sums + 16 * half, n, row, column); break;
            case GELU: finish(d, GELU, sums + 16 * half, n, row, column); break;
            case GELU_TANH: finish(d, GELU_TANH, sums + 16 * half, n, row, column); break;
            case RELU: finish(d, RELU, sums + 16 * half, n, row, column); break;
        }
    }
}

void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset) {
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

void dense_panel(const struct dense *d, size_t panel, size_t first, size_t last) {
    _Alignas(64) int32_t sums[ROWS * PANEL];
    const size_t rows = last - first, blocks = (rows + ROWS - 1) / ROWS;
    const int8_t *here = d->weight + panel * d->inputs * PANEL;
    const int8_t *following = panel + 1 < dense_panels(d) ? here + d->inputs * PANEL : here;
    size_t row = first;
    for (size_t b = 0; b < blocks; b++) {
        const size_t end = first + (b + 1) * rows / blocks; /* blocks of equal size, or one row apart */
        const int n = (int)(end - row);
        const int8_t *next = b + 1 == blocks ? following : here;
        PRODUCTS[n](d->x + row * d->inputs, d->inputs, here, d->inputs / 4, next, sums);
        finish_block(d, sums, n, row, panel);
        row = end;
    }
}
