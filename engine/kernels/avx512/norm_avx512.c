/* Layer normalization with AVX-512: three passes over a row, which is in the first cache after the first. */
#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

/* 16 numbers to bfloat16, ties to even, by integers: not every processor of this file has vcvtneps2bf16. */
INLINE __m256i nearest_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x), half = _mm512_set1_epi32(0x7FFF), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7FC0)));
}

/* One row: y = (x + factor residual - mean) / sqrt(variance + epsilon) gamma + beta. */
static void norm_row(const struct norm *n, const float *x, float *y, const float *residual, uint8_t *y8, bf16 *y16) {
    const size_t width = n->width;
    __m512 total = _mm512_setzero_ps();
    for (size_t i = 0; i < width; i += 16) {
        const __mmask16 some = lanes(width - i);
        __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        if (residual) {
            const __m512 factor = n->factor ? _mm512_maskz_loadu_ps(some, n->factor + i) : _mm512_set1_ps(1);
            v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, residual + i), factor, v);
        }
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
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(variance + n->epsilon))));
    for (size_t i = 0; i < width; i += 16) {
        const __mmask16 some = lanes(width - i);
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, y + i), mean), inverse);
        v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(some, n->gamma + i), _mm512_maskz_loadu_ps(some, n->beta + i));
        _mm512_mask_storeu_ps(y + i, some, v);
        if (y8) _mm_mask_storeu_epi8(y8 + i, some, round_ps(v, n->rounding));
        if (y16) _mm256_mask_storeu_epi16(y16 + i, some, nearest_bf16(v));
    }
}

static void norm_unit(void *operation, size_t unit) {
    const struct norm *n = operation;
    const size_t first = unit * NORM_ROWS, last = first + NORM_ROWS < n->rows ? first + NORM_ROWS : n->rows;
    for (size_t row = first; row < last; row++) {
        const size_t at = row * n->width;
        norm_row(n, n->x + at, n->y + at, n->residual ? n->residual + at : NULL, n->y8 ? n->y8 + at : NULL,
                 n->y16 ? n->y16 + at : NULL);
    }
}

END_TARGET

const struct kernel norm_avx512 = {.unit = norm_unit, .cost = 0.5};
