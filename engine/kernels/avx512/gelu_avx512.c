#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
/* Gelu in float32 with AVX-512. */
#include "../kernels.h"
#include "avx512.h"

void gelu_unit_avx512(void *operation, size_t unit) {
    const struct gelu *g = operation;
    const size_t first = unit * GELU_NUMBERS, last = first + GELU_NUMBERS < g->count ? first + GELU_NUMBERS : g->count;
    for (size_t i = first; i < last; i += 16) {
        const __mmask16 some = lanes(last - i);
        const __m512 x = _mm512_maskz_loadu_ps(some, g->x + i);
        _mm512_mask_storeu_ps(g->y + i, some, g->kind == GELU ? exact_gelu_ps(x) : gelu_tanh_ps(x));
    }
}
