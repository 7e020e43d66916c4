/* The blocks of a product whose weights lie in panels: up to 14 rows by one panel, whose sums stay in registers over all inputs.
 *
 * For int8 and bfloat16 alike: an instruction multiplies four bytes of x, repeated in every lane, by four bytes of the weights of
 * each of 16 outputs, and adds the products to 16 sums. The file that includes this one defines
 *
 *   TAKES                         inputs in four bytes
 *   add_products(sums, x, w)      that instruction, on __m512i
 *   epilogue(d, kind, sums, ...)  what turns the sums of 16 outputs into results
 *   what ends.h takes
 *
 * and includes it between TARGET and END_TARGET.
 */

enum { ROWS = 14, FEW = 4 }; /* rows of a block: 28 of the 32 registers are sums */

/* The next four bytes of row i, in every lane. Rows are addressed in threes, [p], [p + stride] and [p + 2 stride]: with a
 * pointer for each of 14 rows the compiler would run out of registers. */
INLINE __m512i broadcast4(const char *const *threes, size_t stride, int i) {
    int32_t value;
    memcpy(&value, threes[i / 3] + (i % 3) * stride, 4);
    return _mm512_set1_epi32(value);
}

/* sums [n, PANEL] = x W for n rows of x, stride bytes apart, and one panel of W. Prefetches 2 step bytes at next for each four
 * bytes of x, which are needed afterwards: from their start and their middle on at once. */
INLINE void gemm(int n, const char *x, size_t stride, const char *w, size_t fours, const char *next, size_t step, int32_t *sums) {
    __m512i left[ROWS], right[ROWS]; /* all in registers: the loops below are unrolled */
    const char *threes[5];
    UNROLL(5)
    for (int j = 0; j < 5; j++) threes[j] = x + 3 * j * stride;
    UNROLL(16)
    for (int i = 0; i < n; i++) left[i] = right[i] = _mm512_setzero_si512();
    const char *const end = w + 4 * PANEL * fours;
    const size_t middle = step * fours;
    for (; w < end; w += 4 * PANEL, next += step) {
        const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
        _mm_prefetch(next, _MM_HINT_T1);
        _mm_prefetch(next + middle, _MM_HINT_T1);
        UNROLL(16)
        for (int i = 0; i < n; i++) {
            const __m512i a = broadcast4(threes, stride, i);
            left[i] = add_products(left[i], a, w0);
            right[i] = add_products(right[i], a, w1);
        }
        UNROLL(5)
        for (int j = 0; j < (n + 2) / 3; j++) {
            threes[j] += 4;
            __asm__("" : "+r"(threes[j])); /* one register each, not one shared index and a sum for every row */
        }
    }
    UNROLL(16)
    for (int i = 0; i < n; i++) {
        _mm512_store_si512(sums + PANEL * i, left[i]);
        _mm512_store_si512(sums + PANEL * i + 16, right[i]);
    }
}

/* A function for each number of rows, so that its sums stay in registers. */
typedef void gemm_of(const char *, size_t, const char *, size_t, const char *, size_t, int32_t *);
#define GEMM_OF(n)                                                                                                      \
    static __attribute__((noinline)) void gemm_##n(const char *x, size_t stride, const char *w, size_t fours,           \
                                                   const char *next, size_t step, int32_t *sums) {                      \
        gemm(n, x, stride, w, fours, next, step, sums);                                                                 \
    }
GEMM_OF(1) GEMM_OF(2) GEMM_OF(3) GEMM_OF(4) GEMM_OF(5) GEMM_OF(6) GEMM_OF(7)
GEMM_OF(8) GEMM_OF(9) GEMM_OF(10) GEMM_OF(11) GEMM_OF(12) GEMM_OF(13) GEMM_OF(14)
static gemm_of *const GEMM[ROWS + 1] = {
    0,      gemm_1, gemm_2,  gemm_3,  gemm_4,  gemm_5,  gemm_6, gemm_7,
    gemm_8, gemm_9, gemm_10, gemm_11, gemm_12, gemm_13, gemm_14,
};

#include "../any_width/ends.h"

static void epilogue_of_panel(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    if (d->ending != ACTIVATED) {
        end_of_panel(d, sums, n, row, panel);
        return;
    }
    for (size_t half = 0; half < 2; half++) {
        const size_t column = panel * PANEL + 16 * half;
        if (column >= d->outputs) return;
        switch (d->activation) {
            case IDENTITY: epilogue(d, IDENTITY, sums + 16 * half, n, row, column); break;
            case GELU: epilogue(d, GELU, sums + 16 * half, n, row, column); break;
            case GELU_TANH: epilogue(d, GELU_TANH, sums + 16 * half, n, row, column); break;
            case RELU: epilogue(d, RELU, sums + 16 * half, n, row, column); break;
        }
    }
}

/* Compute one panel's columns of y for the rows from first up to last. A few blocks fetch a share of the next panel each, so that
 * the memory is read all the time; of many the last fetches all. */
static void dense_panel(const struct dense *d, size_t panel, size_t first, size_t last) {
    _Alignas(64) int32_t sums[ROWS * PANEL];
    const size_t rows = last - first, blocks = (rows + ROWS - 1) / ROWS;
    const size_t fours = d->inputs / TAKES, stride = 4 * fours, size = stride * PANEL; /* bytes of a row, of a panel */
    const char *weight = (const char *)d->weight + panel * size;
    const char *next_panel = panel + 1 < dense_panels(d) ? weight + size : weight;
    size_t row = first;
    for (size_t b = 0; b < blocks; b++) {
        const size_t end = first + (b + 1) * rows / blocks; /* blocks of equal size, or one row apart */
        const int n = (int)(end - row);
        const char *next = next_panel + (blocks <= FEW ? b * size / blocks : 0);
        const size_t step = blocks <= FEW ? 64 / blocks : b + 1 == blocks ? 64 : 0;
        GEMM[n]((const char *)d->x + row * stride, stride, weight, fours, next, step, sums);
        epilogue_of_panel(d, sums, n, row, panel);
        row = end;
    }
}

static void dense_unit(void *operation, size_t unit) {
    const struct dense *d = operation;
    const size_t panels = dense_panels(d), first = unit / panels * DENSE_ROWS;
    dense_panel(d, unit % panels, first, first + DENSE_ROWS < d->rows ? first + DENSE_ROWS : d->rows);
}
