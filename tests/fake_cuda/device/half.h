/* float16 in software, so that any x86-64 and any gcc will do: to float by a table, back with rounding to nearest even. */
#pragma once

#include <stdint.h>
#include <string.h>

typedef uint16_t half;

extern float half_values[1 << 16]; /* half.c fills it when the library is loaded */

static inline float from_half(half h) { return half_values[h]; }

static inline half to_half(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (half)(sign | 0x7e00);  /* not a number */
    if (magnitude >= 0x477ff000) return (half)(sign | 0x7c00); /* rounds to 65536 or more */
    if (magnitude < 0x33000001) return (half)sign;             /* half the smallest subnormal, or less */
    uint32_t value, shift;
    if (magnitude < 0x38800000) { /* subnormal: the mantissa with its leading one, in units of 2^-24 */
        shift = 126 - (magnitude >> 23);
        value = (magnitude & 0x7fffff) | 0x800000;
    } else {
        shift = 13;
        value = magnitude - (112u << 23);
    }
    const uint32_t whole = value >> shift, rest = value & ((1u << shift) - 1), middle = 1u << (shift - 1);
    return (half)(sign | (whole + (rest > middle || (rest == middle && (whole & 1)))));
}
