/* Layer normalization with AVX2 and FMA: three passes over a row, which is in the first cache after the first. */
#include "../levels.h"
#include "avx2.h"

TARGET("avx2,fma")

/* 8 numbers to bfloat16, ties to even. */
INLINE __m128i nearest_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x), half = _mm256_set1_epi32(0x7FFF), one = _mm256_set1_epi32(1);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    const __m256i up = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(half, odd)), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i y = _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7FC0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
}

/* One row: y = (x + factor residual - mean) / sqrt(variance + epsilon) gamma + beta. */
static void norm_row(const struct norm *n, const float *x, float *y, const float *residual, uint8_t *y8, bf16 *y16) {
    const size_t width = n->width;
    __m256 total = _mm256_setzero_ps();
    for (size_t i = 0; i < width; i += 8) {
        const size_t some = width - i;
        __m256 v = load_ps(x + i, some);
        if (residual) {
            const __m256 factor = n->factor ? load_ps(n->factor + i, some) : _mm256_set1_ps(1);
            v = _mm256_fmadd_ps(load_ps(residual + i, some), factor, v);
        }
        total = _mm256_add_ps(total, v);
        store_ps(y + i, some, v);
    }
    const __m256 mean = _mm256_set1_ps(sum_of(total) / (float)width);
    __m256 squares = _mm256_setzero_ps();
    for (size_t i = 0; i < width; i += 8) {
        __m256 v = _mm256_sub_ps(load_ps(y + i, width - i), mean);
        if (width - i < 8) v = _mm256_and_ps(v, _mm256_castsi256_ps(lanes(width - i)));
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    const float variance = sum_of(squares) / (float)width;
    const __m256 inverse = _mm256_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(variance + n->epsilon))));
    for (size_t i = 0; i < width; i += 8) {
        const size_t some = width - i;
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_ps(y + i, some), mean), inverse);
        v = _mm256_fmadd_ps(v, load_ps(n->gamma + i, some), load_ps(n->beta + i, some));
        store_ps(y + i, some, v);
        if (y8) store_bytes(y8 + i, some, round_ps(v, n->rounding));
        if (y16) store_halves(y16 + i, some, nearest_bf16(v));
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

const struct kernel norm_avx2 = {.unit = norm_unit, .cost = 1};
