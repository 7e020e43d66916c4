/* Layer normalization with AVX-512. */
#include "../levels.h"
#include "vector.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

#include "../any_width/norm.h"

END_TARGET

const struct kernel norm_avx512 = {.unit = norm_unit, .cost = 0.5};
