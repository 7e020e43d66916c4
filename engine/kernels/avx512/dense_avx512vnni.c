/* Dense in int8 with AVX-512 VNNI: vpdpbusd adds four products of a uint8 and an int8 to each of 16 sums.
 *
 * The epilogue scales, activates and rounds the sums of a block. 95 to 98 % of the processor's peak from 14 rows up: bench/NOTES.md.
 */
#include <string.h>

#include "../levels.h"
#include "vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

enum { TAKES = 4 };
INLINE __m512i add_products(__m512i sums, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sums, x, w); }

/* Scale, activate and store the sums of n rows and 16 columns; columns beyond the last output are left out. */
INLINE void epilogue(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t column) {
    const __mmask16 some = lanes(d->outputs - column);
    const __m512i offset = _mm512_loadu_si512(d->offset + column);
    const __m512 scale = _mm512_maskz_loadu_ps(some, d->scale + column), bias = bias_ps(d, some, column);
    size_t at = row * d->outputs + column;
    for (int i = 0; i < n; i++, at += d->outputs, sums += PANEL) {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums), offset));
        const __m512 y = activate_ps(_mm512_fmadd_ps(sum, scale, bias), kind);
        if (d->y) store_ps(d->y + at, some, y);
        else if (some == 0xFFFF) _mm_storeu_si128((__m128i *)(d->y8 + at), round_ps(y, d->rounding));
        else _mm_mask_storeu_epi8(d->y8 + at, some, round_ps(y, d->rounding));
    }
}

struct columns {
    __m512i offset;
    vector scale, bias;
};
INLINE struct columns columns_of(const struct dense *d, size_t column) {
    return (struct columns){_mm512_loadu_si512(d->offset + column), load(d->scale + column), bias_ps(d, 0xFFFF, column)};
}
INLINE vector result_of(struct columns c, const int32_t *sums) {
    return multiply_add(to_float(_mm512_sub_epi32(_mm512_load_si512(sums), c.offset)), c.scale, c.bias);
}
INLINE void store_result(const struct dense *d, size_t at, vector y) {
    if (d->y) store(d->y + at, y);
    else store_rounded(d->y8 + at, LANES, y, d->rounding);
}

#include "panels.h"

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

END_TARGET

const struct kernel dense_avx512vnni = {.unit = dense_unit, .offsets = dense_offsets, .cost = 1 / 230.0};
