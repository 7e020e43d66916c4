/* Embeddings with AVX-512, of words in int8 and, for the graph in bfloat16, in float16. */
#include "../levels.h"
#include "vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

#include "../any_width/embed.h"

INLINE vector add_half(const struct embed *e, size_t at, float scale, size_t some, vector to) {
    (void)scale;
    return add(load_half((const uint16_t *)e->word + at, some), to);
}
static void embed_half_unit(void *operation, size_t unit) { embed_unit(operation, unit, add_half); }

END_TARGET

const struct kernel embed_int8_avx512 = {.unit = embed_int8_unit, .cost = 0.7};
const struct kernel embed_bf16_avx512 = {.unit = embed_half_unit, .cost = 0.7};
