/* Dense in int8 with 256 bits of AVX-512 VNNI: vpdpbusd in its EVEX form, the rest as with AVX-VNNI. */
#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma,avx512f,avx512vl,avx512vnni")

INLINE __m256i add_products(__m256i sums, __m256i x, __m256i w) { return _mm256_dpbusd_epi32(sums, x, w); }

#include "dense_vnni.h"

END_TARGET

const struct kernel dense_avx512vnni_256 = {.unit = dense_unit, .offsets = dense_offsets, .cost = 1 / 200.0};
