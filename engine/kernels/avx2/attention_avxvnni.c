/* Attention with AVX-VNNI, which processors without AVX-512 have: vpdpwssd in its VEX form. */
#include <string.h>

#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma,avxvnni")

#define REGISTERS 2 /* 12 of the 16 registers are sums */
INLINE words add_products(words sums, words a, words b) { return _mm256_dpwssd_avx_epi32(sums, a, b); }

#include "../any_width/attention_int16.h"
#include "../any_width/disentangled_int16.h"

END_TARGET

const struct kernel attention_avxvnni = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 80.0};
const struct kernel disentangled_avxvnni = {.unit = disentangled_unit, .scratch = disentangled_scratch, .cost = 1 / 80.0};
