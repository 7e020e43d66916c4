/* The table from float16 to float32. */
#include "numeric.h"

#include <math.h>

float half_values[1 << 16];

__attribute__((constructor)) static void fill(void) {
    for (int h = 0; h < 1 << 16; h++) {
        const int exponent = h >> 10 & 31, mantissa = h & 1023;
        float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexpf((float)(1024 + mantissa), exponent - 25)
                                     : ldexpf((float)mantissa, -24);
        half_values[h] = h & 0x8000 ? -value : value;
    }
}
