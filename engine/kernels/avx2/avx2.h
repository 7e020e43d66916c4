/* Functions of 8 numbers at a time that the 256-bit kernels share: exp, the activations, rounding, and ends of rows.
 *
 * The polynomials are those of avx512.h. The result for a number depends only on that number, never on its place in a register
 * or on its neighbours: so a text's score does not depend on its batch.
 */
#ifndef FUSEDBERT_AVX2_H
#define FUSEDBERT_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "../kernels.h"

TARGET("avx2,fma")

/* Ones in the first n of 8 lanes. */
INLINE __m256i lanes(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of 8 numbers, and zeros; nothing beyond them is read. */
INLINE __m256 load_ps(const float *p, size_t n) { return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes(n)); }

/* Nothing beyond n of 8 numbers is written, by these two. */
INLINE void store_ps(float *p, size_t n, __m256 x) {
    if (n >= 8) _mm256_storeu_ps(p, x);
    else _mm256_maskstore_ps(p, lanes(n), x);
}
INLINE void store_bytes(uint8_t *p, size_t n, __m128i x) {
    uint8_t all[16];
    if (n >= 8) _mm_storel_epi64((__m128i *)p, x);
    else _mm_storeu_si128((__m128i *)all, x), memcpy(p, all, n);
}

/* 2^n for whole numbers from -126 to 127. */
INLINE __m256 power_of_2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* p 2^n for whole numbers from -252 to 254, in two steps: 2^n by itself may lie beyond the normal numbers. */
INLINE __m256 times_power_of_2(__m256 p, __m256 n) {
    const __m256i power = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(power, 1);
    return _mm256_mul_ps(_mm256_mul_ps(p, power_of_2(half)), power_of_2(_mm256_sub_epi32(power, half)));
}

/* exp(x) for x <= 88: range reduction by ln 2, then the polynomial of Cephes' expf; relative error below 2e-7. */
INLINE __m256 exp_ps(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x); /* whose exp is 0 in float32; NaN, as the second, stays NaN */
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), NEAREST);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x); /* ln 2 in two parts */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    return times_power_of_2(p, n);
}

/* 2^x for x <= 0, as in avx512.h. */
INLINE __m256 exp2_ps(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-150.0f), x); /* whose power is 0 in float32 */
    const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(0.00958285f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.05590643f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.24024099f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.69312419f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return times_power_of_2(p, n);
}

/* y where a Gelu is not 0 to the last bits of float32, else 0. Below, its approximations multiply what is left of Phi by up to
 * -3e38. */
INLINE __m256 if_above_minus_12(__m256 x, __m256 y) {
    return _mm256_and_ps(y, _mm256_cmp_ps(x, _mm256_set1_ps(-12.0f), _CMP_NLT_UQ)); /* or NaN */
}

/* x Phi(x), where Phi is the distribution function of the standard normal, by a polynomial: see avx512.h. */
INLINE __m256 gelu_ps(__m256 x) {
    const __m256 edge = _mm256_set1_ps(4.5f);
    const __m256 c = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-4.5f)), edge), s = _mm256_mul_ps(c, c);
    __m256 p = _mm256_set1_ps(3.03636179e-11f);
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-3.31461281e-09f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(1.59098065e-07f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-4.45169962e-06f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(8.14248488e-05f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.00103758939f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(0.00958519615f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.065984644f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(0.398712605f));
    return if_above_minus_12(x, _mm256_mul_ps(x, _mm256_fmadd_ps(p, c, _mm256_set1_ps(0.5f))));
}

/* x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): the form called gelu_new. */
INLINE __m256 gelu_tanh_ps(__m256 x) {
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044715f));
    const __m256 u = _mm256_mul_ps(_mm256_fmadd_ps(cube, x, x), _mm256_set1_ps(-1.5957691216f));
    const __m256 e = exp_ps(_mm256_min_ps(u, _mm256_set1_ps(80.0f)));
    return if_above_minus_12(x, _mm256_div_ps(x, _mm256_add_ps(e, _mm256_set1_ps(1.0f))));
}

INLINE __m256 activate_ps(__m256 x, enum activation kind) {
    if (kind == GELU) return gelu_ps(x);
    if (kind == GELU_TANH) return gelu_tanh_ps(x);
    if (kind == RELU) return _mm256_max_ps(x, _mm256_setzero_ps());
    return x;
}

/* round(y / scale) + zero_point, from 0 to 255. Multiplies by the inverse of the scale, so a tie may round the other way. */
INLINE __m128i round_ps(__m256 y, struct rounding to) {
    y = _mm256_mul_ps(y, _mm256_set1_ps(to.inverse_scale));
    y = _mm256_min_ps(_mm256_max_ps(y, _mm256_set1_ps(-512.0f)), _mm256_set1_ps(512.0f)); /* NaN becomes -512 */
    const __m256i q = _mm256_add_epi32(_mm256_cvtps_epi32(y), _mm256_set1_epi32(to.zero_point));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    return _mm_packus_epi16(words, words);
}

END_TARGET

#endif
