/* Layer normalization with AVX2 and FMA. */
#include "../levels.h"
#include "vector.h"

TARGET("avx2,fma")

#include "../any_width/norm.h"

END_TARGET

const struct kernel norm_avx2 = {.unit = norm_unit, .cost = 1};
