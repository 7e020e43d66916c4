/* Dense in int8 with AVX-VNNI, which processors without AVX-512 have: vpdpbusd in its VEX form. */
#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma,avxvnni")

INLINE __m256i add_products(__m256i sums, __m256i x, __m256i w) { return _mm256_dpbusd_avx_epi32(sums, x, w); }

#include "dense_vnni.h"

END_TARGET

const struct kernel dense_avxvnni = {.unit = dense_unit, .offsets = dense_offsets, .cost = 1 / 200.0};
