/* The arithmetic that the emulated kernels share: float16 in software, matrix products, attention. All sums are float32. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- float16, so that any x86-64 and any gcc will do: to float by a table, back with rounding to nearest even ---- */
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

/* ---- kernels that move float16 one, two or four at once, as a head's width allows ---- */
/* Numbers that an element of the kernel's type holds; the sizes that it gets count elements. */
static inline size_t lanes(const char *name) { return strstr(name, "5Half4E") ? 4 : strstr(name, "I7__half2") ? 2 : 1; }

/* A table's entries for all three. Kernels with the same name differ in the types of their parameters: `i` is a number, `PKT_`
   the address of an input, `P` of an output, `S` and a digit a type that came before. */
#define HALVES(name, types, parameters, compute, kind)                                                                         \
    {name "INS_4cuda5Half4EEEv" types "$", parameters, compute, kind},                                                         \
        {name "I7__half2EEv" types "$", parameters, compute, kind}, {name "I6__halfEEv" types "$", parameters, compute, kind}

/* ---- gemm.c: C = alpha op(A) op(B) + beta C, column-major as in BLAS ---- */
struct matrix {
    void *at;
    int half; /* float16, else float32 */
    int transposed;
    size_t step; /* from one column to the next */
};

struct product {
    struct matrix a, b, c; /* op(A) is [m, k], op(B) [k, n], C [m, n] */
    size_t m, n, k;
    float alpha, beta;
};

void multiply(const struct product *p);

/* ---- attend.c: attention of one head in one text, softmax(scale Q K') V ---- */
struct attention {
    const half *q, *k, *v;
    half *o;
    size_t q_step, k_step, v_step, o_step; /* from one token's row to the next */
    size_t queries, keys, width, value_width;
    float scale;
};

/* Without keys the outputs are zeros. */
void attend(const struct attention *a);
