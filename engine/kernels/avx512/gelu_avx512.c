/* Gelu in float32 with AVX-512. */
#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

static void gelu_unit(void *operation, size_t unit) {
    const struct gelu *g = operation;
    const size_t first = unit * GELU_NUMBERS, last = first + GELU_NUMBERS < g->count ? first + GELU_NUMBERS : g->count;
    for (size_t i = first; i < last; i += 16) {
        const __mmask16 some = lanes(last - i);
        const __m512 x = _mm512_maskz_loadu_ps(some, g->x + i);
        _mm512_mask_storeu_ps(g->y + i, some, g->kind == GELU ? exact_gelu_ps(x) : gelu_tanh_ps(x));
    }
}

END_TARGET

const struct kernel gelu_avx512 = {.unit = gelu_unit, .cost = 0.5};
