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

END_TARGET
