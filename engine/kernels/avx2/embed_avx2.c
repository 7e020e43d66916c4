/* Embeddings with AVX2, of words in int8. */
#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma")

#include "../any_width/embed.h"

END_TARGET

const struct kernel embed_avx2 = {.unit = embed_int8_unit, .cost = 1};
