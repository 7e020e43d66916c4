/* C = alpha op(A) op(B) + beta C, column by column as BLAS has it, in float32 whatever the matrices hold. */
#pragma once

#include <stddef.h>

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
