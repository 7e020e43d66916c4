/* Attention with AVX-512 VNNI, for processors without bfloat16: products in 16-bit fixed point. */
#include <string.h>

#include "../../levels.h"
#include "../vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#define REGISTERS 4 /* 24 of the 32 registers are sums */
INLINE words add_products(words sums, words a, words b) { return _mm512_dpwssd_epi32(sums, a, b); }

#include "../../any_width/attention_int16.h"
#include "../../any_width/disentangled_int16.h"

END_TARGET

const struct kernel attention_avx512vnni = {.unit = attention_unit, .scratch = attention_scratch, .cost = 1 / 140.0};
const struct kernel disentangled_avx512vnni = {.unit = disentangled_unit, .scratch = disentangled_scratch, .cost = 1 / 140.0};
