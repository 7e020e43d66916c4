/* The words of any_width/ for registers of 8 float32. "some" is the number of lanes that count, all if there are as many. */
#include "avx2.h"

TARGET("avx2,fma")

typedef __m256 vector;
enum { LANES = 8 };
INLINE vector load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store(float *p, vector x) { _mm256_storeu_ps(p, x); }
INLINE vector fill(float x) { return _mm256_set1_ps(x); }
INLINE vector add(vector a, vector b) { return _mm256_add_ps(a, b); }
INLINE vector subtract(vector a, vector b) { return _mm256_sub_ps(a, b); }
INLINE vector multiply(vector a, vector b) { return _mm256_mul_ps(a, b); }
INLINE vector multiply_add(vector a, vector b, vector c) { return _mm256_fmadd_ps(a, b, c); } /* c + a b */
INLINE vector multiply_less(vector a, vector b, vector c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
INLINE vector divide(vector a, vector b) { return _mm256_div_ps(a, b); }
INLINE vector larger(vector a, vector b) { return _mm256_max_ps(a, b); }

INLINE float sum_of(vector x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float largest_of(vector x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* Nothing beyond them is read or written; the other lanes are 0. */
INLINE vector load_some(const float *p, size_t some) { return load_ps(p, some); }
INLINE vector load_int8(const int8_t *p, size_t some) {
    int64_t all = 0;
    memcpy(&all, p, some >= 8 ? 8 : some);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(all)));
}
INLINE vector keep(vector x, size_t some) { return some >= 8 ? x : _mm256_and_ps(x, _mm256_castsi256_ps(lanes(some))); }
INLINE void store_some(float *p, size_t some, vector x) { store_ps(p, some, x); }
INLINE void store_rounded(uint8_t *p, size_t some, vector x, struct rounding to) { store_bytes(p, some, round_ps(x, to)); }
/* To bfloat16, ties to even. */
INLINE void store_nearest(bf16 *p, size_t some, vector x) {
    const __m256i bits = _mm256_castps_si256(x), half = _mm256_set1_epi32(0x7FFF), one = _mm256_set1_epi32(1);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    const __m256i up = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(half, odd)), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i y = _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7FC0), nan);
    bf16 all[8];
    _mm_storeu_si128((__m128i *)all, _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
    memcpy(p, all, some >= 8 ? sizeof all : sizeof *all * some);
}

/* 8 words of 32 bits, or pairs of 16 bits. */
typedef __m256i words;
INLINE words load_words(const int16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store_words(int16_t *p, words x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE words zero_words(void) { return _mm256_setzero_si256(); }
INLINE vector to_float(words x) { return _mm256_cvtepi32_ps(x); }
INLINE words repeat_pair(const int16_t *p) { /* in every lane */
    int32_t pair;
    memcpy(&pair, p, 4);
    return _mm256_set1_epi32(pair);
}

/* |x| as bits, which as whole numbers have the same order; infinity and NaN come last. */
INLINE words size_of(vector x) { return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFFFF)); }
INLINE words larger_words(words a, words b) { return _mm256_max_epi32(a, b); }
INLINE float largest_size(words sizes) {
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(sizes), _mm256_extracti128_si256(sizes, 1));
    s = _mm_max_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(s, _mm_srli_epi64(s, 32))));
}

/* 2 numbers of bfloat16 in each word: the lower and the upper ones. */
INLINE vector lower_bf16(words x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
INLINE vector upper_bf16(words x) { return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xFFFF0000))); }

/* In each lane that of x whose place is given, counted from the first on. */
INLINE vector pick(vector x, const int32_t *places, int32_t first) {
    const __m256i lane = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)places), _mm256_set1_epi32(first));
    return _mm256_permutevar8x32_ps(x, lane);
}

/* Rounded to the nearest, ties to even: one after the other, pairs of neighbours, and pairs of one number of each. */
INLINE void store_int16(int16_t *p, vector x) {
    const __m256i rounded = _mm256_cvtps_epi32(x);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1)));
}
INLINE words round_to_pairs(vector low, vector high) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high)), 0xD8);
}
INLINE words round_side_by_side(vector even, vector odd) {
    const words low = _mm256_and_si256(_mm256_cvtps_epi32(even), _mm256_set1_epi32(0xFFFF));
    return _mm256_or_si256(low, _mm256_slli_epi32(_mm256_cvtps_epi32(odd), 16));
}

/* 8 rows to 8 columns: r[i] lane j becomes r[j] lane i. */
INLINE void transpose(words r[8]) {
    words t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

END_TARGET
