/* softmax(q k^T) v for one head of one text (Vaswani et al. 2017): products in bfloat16, sums and softmax in float32.
 *
 * Keys beyond the text's own length do not exist: padding costs nothing and changes no bit of the result. Where there are as
 * many queries as keys they are of the same tokens, and those of padding give the zero point.
 */
#ifndef FUSEDBERT_ATTENTION_H
#define FUSEDBERT_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "dense.h"

#define QUERIES 6 /* rows of scores at a time */

struct attention {
    const float *q, *k, *v; /* [batch, queries, hidden], [batch, keys, hidden] twice; q has 1 / sqrt(head) in it already */
    const int64_t *lengths; /* [batch]: tokens of each text; NULL where none is padded */
    size_t batch, queries, keys, heads, head; /* head: numbers of a head, a multiple of 16; hidden = heads * head */
    uint8_t *y8;            /* [batch, queries, hidden] */
    struct rounding rounding;
    char *scratch; /* attention_scratch() bytes for each head of each text, aligned to 64 */
};

/* Bytes that one head of one text needs. */
size_t attention_scratch(const struct attention *a);

/* Compute one head of one text. */
void attention_head(const struct attention *a, size_t text, size_t head);

#endif
