/* Layer normalization over the last axis (Ba et al. 2016), of a sum with the residual. */
#ifndef FUSEDBERT_NORM_H
#define FUSEDBERT_NORM_H

#include "dense.h"

struct add_norm {
    float *y;               /* [rows, width]: what is added to, and where the result goes */
    const float *residual;  /* [rows, width] */
    const float *factor;    /* [width]: what the residual is multiplied by; NULL for 1 */
    const float *gain, *shift; /* [width] */
    float epsilon;
    size_t width;
    uint8_t *y8; /* [rows, width], the result in eight bits, or NULL */
    struct rounding rounding;
};

/* Normalize the rows from first up to last. */
void add_norm_rows(const struct add_norm *a, size_t first, size_t last);

#endif
