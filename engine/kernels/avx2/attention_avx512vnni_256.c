/* Attention by 256-bit vpdpwssd in its EVEX form. */
#include <string.h>

#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#define REGISTERS 2 /* 12 of the 16 registers are sums */
INLINE words add_products(words sums, words a, words b) { return _mm256_dpwssd_epi32(sums, a, b); }

#include "../any_width/attention_int16.h"
#include "../any_width/disentangled_int16.h"

END_TARGET

const struct kernel attention_avx512vnni_256 = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 80.0};
const struct kernel disentangled_avx512vnni_256 = {.unit = disentangled_unit, .scratch = disentangled_scratch, .cost = 1 / 80.0};
