/* Layer normalization over the last axis (Ba et al. 2016), of an input or of its sum with the residual. */
#ifndef FUSEDBERT_NORM_H
#define FUSEDBERT_NORM_H

#include "dense.h"

struct add_norm {
    const float *x;         /* [rows, width]; may be y */
    float *y;               /* [rows, width], the result */
    const float *residual;  /* [rows, width], or NULL */
    const float *factor;    /* [width]: what the residual is multiplied by */
    const float *gain, *shift; /* [width] */
    float epsilon;
    size_t rows, width;
    uint8_t *y8; /* [rows, width], the result in eight bits, or NULL */
    struct rounding rounding;
};

/* Rows are normalized a few at a time: number of such units, and one of them, of the struct add_norm at data. */
size_t add_norm_units(const struct add_norm *a);
void add_norm_unit(void *data, size_t unit);

#endif
