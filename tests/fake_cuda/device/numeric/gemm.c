/* Matrix products: see numeric.h. Both operands are packed as float32, A in panels of 32 rows, B column after column; then
   blocks of 4 columns and 32 rows are summed in registers. */
#include "numeric.h"

#include <stdlib.h>

#include "../runtime/fake_cuda.h"

enum { ROWS = 32, COLUMNS = 4, SHARE = 64 /* columns that a thread takes at a time */ };
typedef float lane __attribute__((vector_size(64)));

/* Compiled for several instruction sets; the processor picks the best, so a build works on any machine. */
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))

/* [k, ROWS] by COLUMNS columns of k numbers. */
WIDE static void block(const float *a, const float *b, size_t b_step, size_t k, float sums[COLUMNS][ROWS]) {
    lane x00 = {0}, x01 = {0}, x10 = {0}, x11 = {0}, x20 = {0}, x21 = {0}, x30 = {0}, x31 = {0};
    for (size_t p = 0; p < k; p++) {
        const lane u = ((const lane *)(a + p * ROWS))[0], v = ((const lane *)(a + p * ROWS))[1];
        const float b0 = b[p], b1 = b[b_step + p], b2 = b[2 * b_step + p], b3 = b[3 * b_step + p];
        x00 += u * b0, x01 += v * b0;
        x10 += u * b1, x11 += v * b1;
        x20 += u * b2, x21 += v * b2;
        x30 += u * b3, x31 += v * b3;
    }
    lane *to = (lane *)sums;
    to[0] = x00, to[1] = x01, to[2] = x10, to[3] = x11, to[4] = x20, to[5] = x21, to[6] = x30, to[7] = x31;
}

static float element(const struct matrix *m, size_t row, size_t column) {
    const size_t at = m->transposed ? row * m->step + column : column * m->step + row;
    return m->half ? from_half(((const half *)m->at)[at]) : ((const float *)m->at)[at];
}

struct packed {
    const struct product *p;
    float *a, *b;
};

static void panel_of_a(void *data, size_t number) {
    const struct packed *x = data;
    const struct product *p = x->p;
    float *to = x->a + number * p->k * ROWS;
    for (size_t q = 0; q < p->k; q++)
        for (size_t i = 0; i < ROWS; i++) {
            const size_t row = number * ROWS + i;
            to[q * ROWS + i] = row < p->m ? element(&p->a, row, q) : 0;
        }
}

static void columns(void *data, size_t number) {
    const struct packed *x = data;
    const struct product *p = x->p;
    const size_t begin = number * SHARE, end = begin + SHARE < p->n ? begin + SHARE : p->n;
    for (size_t j = begin; j < begin + SHARE; j++)
        for (size_t q = 0; q < p->k; q++) x->b[j * p->k + q] = j < end ? element(&p->b, q, j) : 0;
    for (size_t row = 0; row < p->m; row += ROWS)
        for (size_t column = begin; column < end; column += COLUMNS) {
            float sums[COLUMNS][ROWS] __attribute__((aligned(64)));
            block(x->a + row * p->k, x->b + column * p->k, p->k, p->k, sums);
            for (size_t j = 0; j < COLUMNS && column + j < end; j++)
                for (size_t i = 0; i < ROWS && row + i < p->m; i++) {
                    const size_t at = (column + j) * p->c.step + row + i;
                    float value = p->alpha * sums[j][i];
                    if (p->beta) value += p->beta * element(&p->c, row + i, column + j);
                    if (p->c.half) ((half *)p->c.at)[at] = to_half(value);
                    else ((float *)p->c.at)[at] = value;
                }
        }
}

void multiply(const struct product *p) {
    const size_t panels = (p->m + ROWS - 1) / ROWS, shares = (p->n + SHARE - 1) / SHARE;
    if (!panels || !shares) return;
    struct packed x = {p, aligned_alloc(64, panels * ROWS * (p->k + 1) * sizeof(float)), NULL};
    x.b = aligned_alloc(64, shares * SHARE * (p->k + 1) * sizeof(float));
    if (!x.a || !x.b) abort();
    fake_cuda_in_parallel(panels, panel_of_a, &x);
    fake_cuda_in_parallel(shares, columns, &x);
    free(x.a);
    free(x.b);
}
