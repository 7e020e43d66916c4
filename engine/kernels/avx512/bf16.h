/* bfloat16 by AVX-512 BF16: rounding to the nearest, ties to even. Numbers below the smallest normal one become 0. */
#ifndef FUSEDBERT_BF16_H
#define FUSEDBERT_BF16_H

#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

INLINE __m256i to_bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

INLINE void store_bf16(bf16 *y, __mmask16 some, __m512 x) {
    if (some == 0xFFFF) _mm256_storeu_si256((__m256i *)y, to_bf16(x));
    else _mm256_mask_storeu_epi16(y, some, to_bf16(x));
}

END_TARGET

#endif
