#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "norm.h"

#include "simd.h"

/* One row: y = (x + factor residual - mean) / sqrt(variance + epsilon) gain + shift. */
static void add_norm_row(const struct add_norm *a, const float *x, float *y, const float *residual, uint8_t *y8) {
    const size_t width = a->width;
    __m512 total = _mm512_setzero_ps();
    for (size_t i = 0; i < width; i += 16) {
        const __mmask16 some = lanes(width - i);
        __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        if (residual) v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, residual + i), _mm512_maskz_loadu_ps(some, a->factor + i), v);
        total = _mm512_add_ps(total, v);
        _mm512_mask_storeu_ps(y + i, some, v);
    }
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / (float)width);
    __m512 squares = _mm512_setzero_ps();
    for (size_t i = 0; i < width; i += 16) {
        const __mmask16 some = lanes(width - i);
        const __m512 v = _mm512_maskz_sub_ps(some, _mm512_maskz_loadu_ps(some, y + i), mean);
        squares = _mm512_fmadd_ps(v, v, squares);
    }
    const float variance = _mm512_reduce_add_ps(squares) / (float)width;
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(variance + a->epsilon))));
    for (size_t i = 0; i < width; i += 16) {
        const __mmask16 some = lanes(width - i);
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, y + i), mean), inverse);
        v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(some, a->gain + i), _mm512_maskz_loadu_ps(some, a->shift + i));
        _mm512_mask_storeu_ps(y + i, some, v);
        if (y8) _mm_mask_storeu_epi8(y8 + i, some, round_ps(v, a->rounding));
    }
}

enum { ROWS_OF_A_UNIT = 4 };

size_t add_norm_units(const struct add_norm *a) { return (a->rows + ROWS_OF_A_UNIT - 1) / ROWS_OF_A_UNIT; }

void add_norm_unit(void *data, size_t unit) {
    const struct add_norm *a = data;
    const size_t first = unit * ROWS_OF_A_UNIT, last = first + ROWS_OF_A_UNIT < a->rows ? first + ROWS_OF_A_UNIT : a->rows;
    for (size_t row = first; row < last; row++) {
        const size_t at = row * a->width;
        add_norm_row(a, a->x + at, a->y + at, a->residual ? a->residual + at : NULL, a->y8 ? a->y8 + at : NULL);
    }
}
