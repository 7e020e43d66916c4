/* Attention in float32 with AVX-512, for processors without bfloat16. */
#include <math.h>
#include <string.h>

#include "../levels.h"
#include "vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

#define REGISTERS 4 /* 24 of the 32 registers are sums */

INLINE void turn(vector r[16]) {
    __m512i words[16];
    for (int i = 0; i < 16; i++) words[i] = _mm512_castps_si512(r[i]);
    transpose(words);
    for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(words[i]);
}

#include "../any_width/attention_fp32.h"

END_TARGET

const struct kernel attention_avx512 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 100.0};
