/* Layer normalization, for registers of any width: three passes over a row, which is in the first cache after the first.
 *
 * The file that includes this one includes vector.h of its width before, and does so between TARGET and END_TARGET.
 */

/* One row: y = (x + factor residual - mean) / sqrt(variance + epsilon) gamma + beta, or the sum. */
static void norm_row(const struct norm *n, const float *x, float *y, const float *residual, uint8_t *y8, bf16 *y16) {
    const size_t width = n->width;
    vector total = fill(0);
    for (size_t i = 0; i < width; i += LANES) {
        const size_t some = width - i;
        vector v = load_some(x + i, some);
        if (residual) v = multiply_add(load_some(residual + i, some), n->factor ? load_some(n->factor + i, some) : fill(1), v);
        total = add(total, v);
        store_some(y + i, some, v);
    }
    const vector mean = fill(sum_of(total) / (float)width);
    vector squares = fill(0);
    for (size_t i = 0; i < width; i += LANES) {
        const vector v = keep(subtract(load_some(y + i, width - i), mean), width - i);
        squares = multiply_add(v, v, squares);
    }
    const float variance = sum_of(squares) / (float)width;
    const vector inverse = fill(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(variance + n->epsilon))));
    for (size_t i = 0; i < width; i += LANES) {
        const size_t some = width - i;
        vector v = multiply(subtract(load_some(y + i, some), mean), inverse);
        v = multiply_add(v, load_some(n->gamma + i, some), load_some(n->beta + i, some));
        if (!n->keeps_sum) store_some(y + i, some, v);
        if (y8) store_rounded(y8 + i, some, v, n->rounding);
        if (y16) store_nearest(y16 + i, some, v);
    }
}

static inline void norm_unit(void *operation, size_t unit) {
    const struct norm *n = operation;
    const size_t first = unit * NORM_ROWS, last = first + NORM_ROWS < n->rows ? first + NORM_ROWS : n->rows;
    for (size_t row = first; row < last; row++) {
        const size_t at = row * n->width;
        norm_row(n, n->x + at, n->y + at, n->residual ? n->residual + at : NULL, n->y8 ? n->y8 + at : NULL,
                 n->y16 ? n->y16 + at : NULL);
    }
}
