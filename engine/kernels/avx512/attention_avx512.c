/* Attention in float32 with AVX-512, for processors without bfloat16. */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

typedef __m512 vector;
enum { LANES = 16 };
#define REGISTERS 4 /* 24 of the 32 registers are sums */
INLINE vector load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, vector x) { _mm512_storeu_ps(p, x); }
INLINE vector fill(float x) { return _mm512_set1_ps(x); }
INLINE vector add(vector a, vector b) { return _mm512_add_ps(a, b); }
INLINE vector multiply(vector a, vector b) { return _mm512_mul_ps(a, b); }
INLINE vector multiply_add(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vector larger(vector a, vector b) { return _mm512_max_ps(a, b); }
INLINE float sum_of(vector x) { return _mm512_reduce_add_ps(x); }
INLINE float largest_of(vector x) { return _mm512_reduce_max_ps(x); }
INLINE void store_rounded(uint8_t *p, vector x, struct rounding to) { _mm_storeu_si128((__m128i *)p, round_ps(x, to)); }

INLINE void turn(vector r[16]) {
    __m512i words[16];
    for (int i = 0; i < 16; i++) words[i] = _mm512_castps_si512(r[i]);
    transpose(words);
    for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(words[i]);
}

#include "../attention_fp32.h"

END_TARGET

const struct kernel attention_avx512 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 100.0};
