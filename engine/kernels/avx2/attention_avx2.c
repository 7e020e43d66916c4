/* Attention in float32 with AVX2 and FMA. */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "avx2.h"

TARGET("avx2,fma")

typedef __m256 vector;
enum { LANES = 8 };
#define REGISTERS 2 /* 12 of the 16 registers are sums */
INLINE vector load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store(float *p, vector x) { _mm256_storeu_ps(p, x); }
INLINE vector fill(float x) { return _mm256_set1_ps(x); }
INLINE vector add(vector a, vector b) { return _mm256_add_ps(a, b); }
INLINE vector multiply(vector a, vector b) { return _mm256_mul_ps(a, b); }
INLINE vector multiply_add(vector a, vector b, vector c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vector larger(vector a, vector b) { return _mm256_max_ps(a, b); }
INLINE void store_rounded(uint8_t *p, vector x, struct rounding to) { _mm_storel_epi64((__m128i *)p, round_ps(x, to)); }

/* 8 rows to 8 columns: r[i] lane j becomes r[j] lane i. */
INLINE void turn(vector r[8]) {
    vector t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

#include "../attention_fp32.h"

END_TARGET

const struct kernel attention_avx2 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 50.0};
