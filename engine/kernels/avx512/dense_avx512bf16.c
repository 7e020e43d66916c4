/* Dense in bfloat16 with AVX-512 BF16: vdpbf16ps adds two products of bfloat16 to each of 16 float32 sums.
 *
 * The epilogue adds the bias, activates, and rounds to bfloat16 if the next operation takes it.
 */
#include <string.h>

#include "../levels.h"
#include "bf16.h"
#include "vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

enum { TAKES = 2 };
INLINE __m512i add_products(__m512i sums, __m512i x, __m512i w) {
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), (__m512bh)x, (__m512bh)w));
}

/* Activate and store the sums of n rows and 16 columns; columns beyond the last output are left out. */
INLINE void epilogue(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t column) {
    const __mmask16 some = lanes(d->outputs - column);
    const __m512 bias = bias_ps(d, some, column);
    size_t at = row * d->outputs + column;
    for (int i = 0; i < n; i++, at += d->outputs, sums += PANEL) {
        const __m512 y = activate_ps(_mm512_add_ps(_mm512_load_ps(sums), bias), kind);
        if (d->y) store_ps(d->y + at, some, y);
        else store_bf16(d->y16 + at, some, y);
    }
}

struct columns {
    vector bias;
};
INLINE struct columns columns_of(const struct dense *d, size_t column) { return (struct columns){bias_ps(d, 0xFFFF, column)}; }
INLINE vector result_of(struct columns c, const int32_t *sums) { return add(_mm512_load_ps(sums), c.bias); }
INLINE void store_result(const struct dense *d, size_t at, vector y) {
    if (d->y) store(d->y + at, y);
    else store_bf16(d->y16 + at, 0xFFFF, y);
}

#include "panels.h"

END_TARGET

const struct kernel dense_avx512bf16 = {.unit = dense_unit, .cost = 1 / 115.0};
