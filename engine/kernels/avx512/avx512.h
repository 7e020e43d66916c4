/* Functions of 16 numbers at a time that the AVX-512 kernels share: exp, the activations, rounding to eight bits.
 *
 * The result for a number depends only on that number, never on its place in a register or on its neighbours: so a text's score
 * does not depend on its batch.
 */
#ifndef FUSEDBERT_AVX512_H
#define FUSEDBERT_AVX512_H

#include <immintrin.h>

#include "../kernels.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

/* The first n of 16 lanes. */
INLINE __mmask16 lanes(size_t n) { return n >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << n) - 1); }

/* exp(x) for x <= 88: range reduction by ln 2, then the polynomial of Cephes' expf; relative error below 2e-7. */
INLINE __m512 exp_ps(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x); /* whose exp is 0 in float32; NaN, as the second, stays NaN */
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), NEAREST);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x); /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* 2^x for x <= 0, for results that are rounded to 16 bits or fewer: relative error below 3e-6. NaN stays NaN. */
INLINE __m512 exp2_ps(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x); /* whose power is 0 in float32 */
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(0.00958285f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05590643f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24024099f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69312419f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* Where a Gelu is not 0 to the last bits of float32. Below, its approximations multiply what is left of Phi by up to -3e38. */
INLINE __mmask16 above_minus_12(__m512 x) { return _mm512_cmp_ps_mask(x, _mm512_set1_ps(-12.0f), _CMP_NLT_UQ); /* or NaN */ }

/* x Phi(x), where Phi is the distribution function of the standard normal (Hendrycks and Gimpel 2016).
 *
 * Phi(x) - 1/2 is an odd polynomial on [-4.5, 4.5], fitted for the least error of the product: below 1e-4 for x < 12, a
 * hundredth of a step of the eight bits that it is rounded to, and 3e-6 x beyond.
 */
INLINE __m512 gelu_ps(__m512 x) {
    const __m512 edge = _mm512_set1_ps(4.5f);
    __m512 c = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-4.5f)), edge);
    __m512 s = _mm512_mul_ps(c, c);
    __m512 p = _mm512_set1_ps(3.03636179e-11f);
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-3.31461281e-09f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(1.59098065e-07f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-4.45169962e-06f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(8.14248488e-05f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.00103758939f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.00958519615f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.065984644f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.398712605f));
    return _mm512_maskz_mul_ps(above_minus_12(x), x, _mm512_fmadd_ps(p, c, _mm512_set1_ps(0.5f)));
}

/* The same to the last bits of float32: log Phi(-|x|) is a polynomial on [0, 6.5], beyond which Phi(-|x|) counts as 0. Error
 * below 5e-7. NaN stays NaN. */
INLINE __m512 exact_gelu_ps(__m512 x) {
    const __m512 edge = _mm512_set1_ps(6.5f);
    const __mmask16 near = _mm512_cmp_ps_mask(_mm512_abs_ps(x), edge, _CMP_NGT_UQ);
    const __m512 a = _mm512_min_ps(_mm512_abs_ps(x), edge);
    __m512 p = _mm512_set1_ps(2.6750115e-07f);
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-5.32597505e-06f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(4.40699696e-05f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-0.000171529609f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-3.75061682e-05f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(0.00485705864f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-0.0363781974f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-0.318297088f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-0.797886252f));
    p = _mm512_fmadd_ps(p, a, _mm512_set1_ps(-0.693147123f));
    const __m512 below = _mm512_maskz_mul_ps(near, x, exp_ps(p)); /* x Phi(-|x|) */
    return _mm512_mask_sub_ps(below, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), x, below);
}

/* x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): the form called gelu_new. */
INLINE __m512 gelu_tanh_ps(__m512 x) {
    __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f));
    __m512 u = _mm512_mul_ps(_mm512_fmadd_ps(cube, x, x), _mm512_set1_ps(-1.5957691216f));
    __m512 e = exp_ps(_mm512_min_ps(u, _mm512_set1_ps(80.0f)));
    return _mm512_maskz_div_ps(above_minus_12(x), x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

INLINE __m512 activate_ps(__m512 x, enum activation kind) {
    if (kind == GELU) return gelu_ps(x);
    if (kind == GELU_TANH) return gelu_tanh_ps(x);
    if (kind == RELU) return _mm512_max_ps(x, _mm512_setzero_ps());
    return x;
}

/* 16 rows of 16 words of 32 bits to 16 columns: rows[i] lane j becomes rows[j] lane i. */
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

/* round(y / scale) + zero_point, from 0 to 255. Multiplies by the inverse of the scale, so a tie may round the other way. */
INLINE __m128i round_ps(__m512 y, struct rounding to) {
    y = _mm512_mul_ps(y, _mm512_set1_ps(to.inverse_scale));
    y = _mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(-512.0f)), _mm512_set1_ps(512.0f)); /* int32 holds it; NaN becomes -512 */
    __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(y), _mm512_set1_epi32(to.zero_point));
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512()));
}

INLINE void store_ps(float *y, __mmask16 some, __m512 x) {
    if (some == 0xFFFF) _mm512_storeu_ps(y, x);
    else _mm512_mask_storeu_ps(y, some, x);
}

/* The bias of 16 outputs of a product, or 0. */
INLINE __m512 bias_ps(const struct dense *d, __mmask16 some, size_t column) {
    return d->bias ? _mm512_maskz_loadu_ps(some, d->bias + column) : _mm512_setzero_ps();
}

END_TARGET

#endif
