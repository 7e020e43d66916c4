/* The words of any_width/ for registers of 16 float32. "some" is the number of lanes that count, all if there are as many. */
#include <string.h>

#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

typedef __m512 vector;
enum { LANES = 16 };
INLINE vector load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, vector x) { _mm512_storeu_ps(p, x); }
INLINE vector fill(float x) { return _mm512_set1_ps(x); }
INLINE vector add(vector a, vector b) { return _mm512_add_ps(a, b); }
INLINE vector subtract(vector a, vector b) { return _mm512_sub_ps(a, b); }
INLINE vector multiply(vector a, vector b) { return _mm512_mul_ps(a, b); }
INLINE vector multiply_add(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); } /* c + a b */
INLINE vector multiply_less(vector a, vector b, vector c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
INLINE vector divide(vector a, vector b) { return _mm512_div_ps(a, b); }
INLINE vector larger(vector a, vector b) { return _mm512_max_ps(a, b); }
INLINE float sum_of(vector x) { return _mm512_reduce_add_ps(x); }
INLINE float largest_of(vector x) { return _mm512_reduce_max_ps(x); }

/* Nothing beyond them is read or written; the other lanes are 0. */
INLINE vector load_some(const float *p, size_t some) { return _mm512_maskz_loadu_ps(lanes(some), p); }
INLINE vector load_int8(const int8_t *p, size_t some) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes(some), p)));
}
INLINE vector load_half(const uint16_t *p, size_t some) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(some), p)); }
INLINE vector keep(vector x, size_t some) { return _mm512_maskz_mov_ps(lanes(some), x); }
INLINE void store_some(float *p, size_t some, vector x) { _mm512_mask_storeu_ps(p, lanes(some), x); }
INLINE void store_rounded(uint8_t *p, size_t some, vector x, struct rounding to) {
    _mm_mask_storeu_epi8(p, lanes(some), round_ps(x, to));
}
/* To bfloat16, ties to even, by integers: not every processor of this width has vcvtneps2bf16. */
INLINE void store_nearest(bf16 *p, size_t some, vector x) {
    const __m512i bits = _mm512_castps_si512(x), half = _mm512_set1_epi32(0x7FFF), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i y = _mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7FC0));
    _mm256_mask_storeu_epi16(p, lanes(some), _mm512_cvtepi32_epi16(y));
}

/* 16 words of 32 bits, or pairs of 16 bits. */
typedef __m512i words;
INLINE words load_words(const int16_t *p) { return _mm512_loadu_si512(p); }
INLINE void store_words(int16_t *p, words x) { _mm512_storeu_si512(p, x); }
INLINE words zero_words(void) { return _mm512_setzero_si512(); }
INLINE vector to_float(words x) { return _mm512_cvtepi32_ps(x); }
INLINE words repeat_pair(const int16_t *p) { /* in every lane */
    int32_t pair;
    memcpy(&pair, p, 4);
    return _mm512_set1_epi32(pair);
}

/* |x| as bits, which as whole numbers have the same order; infinity and NaN come last. */
INLINE words size_of(vector x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF)); }
INLINE words larger_words(words a, words b) { return _mm512_max_epi32(a, b); }
INLINE float largest_size(words sizes) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(sizes))));
}

/* 2 numbers of bfloat16 in each word: the lower and the upper ones. */
INLINE vector lower_bf16(words x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
INLINE vector upper_bf16(words x) { return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xFFFF0000))); }

/* In each lane that of x whose place is given, counted from the first on. */
INLINE vector pick(vector x, const int32_t *places, int32_t first) {
    return _mm512_permutexvar_ps(_mm512_sub_epi32(_mm512_loadu_si512(places), _mm512_set1_epi32(first)), x);
}

/* Rounded to the nearest, ties to even: one after the other, pairs of neighbours, and pairs of one number of each. */
INLINE void store_int16(int16_t *p, vector x) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))); }
INLINE words round_to_pairs(vector low, vector high) {
    const __m256i first = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(low));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(high)), 1);
}
INLINE words round_side_by_side(vector even, vector odd) {
    const words low = _mm512_and_si512(_mm512_cvtps_epi32(even), _mm512_set1_epi32(0xFFFF));
    return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtps_epi32(odd), 16));
}

END_TARGET
