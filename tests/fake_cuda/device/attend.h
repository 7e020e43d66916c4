/* Attention of one head in one text: softmax(scale Q K' ) V, in float32. */
#pragma once

#include <stddef.h>

#include "half.h"

struct attention {
    const half *q, *k, *v;
    half *o;
    size_t q_step, k_step, v_step, o_step; /* from one token's row to the next */
    size_t queries, keys, width, value_width;
    float scale;
};

/* Without keys the outputs are zeros. */
void attend(const struct attention *a);
