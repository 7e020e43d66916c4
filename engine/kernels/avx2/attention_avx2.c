/* Attention in float32 with AVX2 and FMA. */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma")

#define REGISTERS 2 /* 12 of the 16 registers are sums */

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

#include "../any_width/attention_fp32.h"

END_TARGET

const struct kernel attention_avx2 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 50.0};
