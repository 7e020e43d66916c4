/* Dense in int8 by 256-bit vpdpbusd, which adds four products of a uint8 and an int8 to each of 8 sums.
 *
 * The instruction has two forms: VEX, of AVX-VNNI, and EVEX, of AVX-512 VNNI and VL. The file that includes this one defines
 *
 *   add_products(sums, x, w)   the instruction, on __m256i
 *
 * and includes it between TARGET and END_TARGET. With 16 registers a block is 6 rows by half a panel: 12 registers of sums, 2 of
 * weights, one of x. Up to 3 rows take a whole panel at once, so that few rows read the weights front to back.
 */

enum { ROWS = 6, FEW = 4 };

/* The next four bytes of a row, in every lane. */
INLINE __m256i broadcast4(const uint8_t *x) {
    int32_t value;
    memcpy(&value, x, 4);
    return _mm256_set1_epi32(value);
}

/* sums [n, 8 m] = x W for n rows of x, stride bytes apart, and 8 m columns of a panel; a row of sums has PANEL numbers.
 * Prefetches step bytes at next for each four bytes of x, and with a whole panel as many beyond those. */
INLINE void gemm(int n, int m, const uint8_t *x, size_t stride, const int8_t *w, size_t fours, const int8_t *next, size_t step,
                 int32_t *sums) {
    __m256i block[ROWS][4], right[4]; /* all in registers: the loops below are unrolled */
    const size_t middle = step * fours;
    const uint8_t *x3 = x + 3 * stride; /* rows 3 to 5, so that each address is a register and 0, 1 or 2 strides */
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) block[i][j] = _mm256_setzero_si256();
    for (const int8_t *const end = w + 4 * PANEL * fours; w < end; w += 4 * PANEL, x += 4, x3 += 4, next += step) {
        UNROLL(4)
        for (int j = 0; j < m; j++) right[j] = _mm256_loadu_si256((const __m256i *)(w + 32 * j));
        UNROLL(2)
        for (int j = 0; j < m / 2; j++) _mm_prefetch((const char *)next + j * middle, _MM_HINT_T1);
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const __m256i left = broadcast4(i < 3 ? x + i * stride : x3 + (i - 3) * stride);
            UNROLL(4)
            for (int j = 0; j < m; j++) block[i][j] = add_products(block[i][j], left, right[j]);
        }
    }
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) _mm256_store_si256((__m256i *)(sums + PANEL * i + 8 * j), block[i][j]);
}

/* A function for each number of rows: of a whole panel, or of its halves one after the other. */
typedef void gemm_of(const uint8_t *, size_t, const int8_t *, size_t, const int8_t *, size_t, int32_t *);
#define GEMM_OF(n)                                                                                                      \
    static __attribute__((noinline)) void gemm_##n(const uint8_t *x, size_t stride, const int8_t *w, size_t fours,      \
                                                   const int8_t *next, size_t step, int32_t *sums) {                    \
        if (n <= 3) {                                                                                                   \
            gemm(n, 4, x, stride, w, fours, next, step, sums);                                                          \
            return;                                                                                                     \
        }                                                                                                               \
        gemm(n, 2, x, stride, w, fours, next, step, sums);                                                              \
        gemm(n, 2, x, stride, w + 64, fours, next + step * fours, step, sums + 16);                                     \
    }
GEMM_OF(1) GEMM_OF(2) GEMM_OF(3) GEMM_OF(4) GEMM_OF(5) GEMM_OF(6)
static gemm_of *const GEMM[ROWS + 1] = {0, gemm_1, gemm_2, gemm_3, gemm_4, gemm_5, gemm_6};

/* Scale, activate and store the sums of n rows and 8 columns; columns beyond the last output are left out. */
INLINE void epilogue(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t column) {
    const size_t some = d->outputs - column;
    const __m256i offset = _mm256_loadu_si256((const __m256i *)(d->offset + column));
    const __m256 scale = load_ps(d->scale + column, some);
    const __m256 bias = d->bias ? load_ps(d->bias + column, some) : _mm256_setzero_ps();
    size_t at = row * d->outputs + column;
    for (int i = 0; i < n; i++, at += d->outputs, sums += PANEL) {
        const __m256i product = _mm256_sub_epi32(_mm256_load_si256((const __m256i *)sums), offset);
        const __m256 y = activate_ps(_mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, bias), kind);
        if (d->y) store_ps(d->y + at, some, y);
        else store_bytes(d->y8 + at, some, round_ps(y, d->rounding));
    }
}

struct columns {
    words offset;
    vector scale, bias;
};
INLINE struct columns columns_of(const struct dense *d, size_t column) {
    const __m256i offset = _mm256_loadu_si256((const __m256i *)(d->offset + column));
    return (struct columns){offset, load(d->scale + column), d->bias ? load(d->bias + column) : fill(0)};
}
INLINE vector result_of(struct columns c, const int32_t *sums) {
    return multiply_add(to_float(_mm256_sub_epi32(_mm256_load_si256((const __m256i *)sums), c.offset)), c.scale, c.bias);
}
INLINE void store_result(const struct dense *d, size_t at, vector y) {
    if (d->y) store(d->y + at, y);
    else store_rounded(d->y8 + at, LANES, y, d->rounding);
}
#include "../any_width/ends.h"

static void epilogue_of_panel(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    if (d->ending != ACTIVATED) {
        end_of_panel(d, sums, n, row, panel);
        return;
    }
    for (size_t part = 0; part < PANEL; part += 8) {
        const size_t column = panel * PANEL + part;
        if (column >= d->outputs) return;
        switch (d->activation) {
            case IDENTITY: epilogue(d, IDENTITY, sums + part, n, row, column); break;
            case GELU: epilogue(d, GELU, sums + part, n, row, column); break;
            case GELU_TANH: epilogue(d, GELU_TANH, sums + part, n, row, column); break;
            case RELU: epilogue(d, RELU, sums + part, n, row, column); break;
        }
    }
}

/* Compute one panel's columns of y for the rows from first up to last. A few blocks fetch a share of the next panel each, so that
 * the memory is read all the time; of many the last fetches all. */
static void dense_panel(const struct dense *d, size_t panel, size_t first, size_t last) {
    _Alignas(32) int32_t sums[ROWS * PANEL];
    const size_t rows = last - first, blocks = (rows + ROWS - 1) / ROWS, size = d->inputs * PANEL;
    const int8_t *weight = (const int8_t *)d->weight + panel * size;
    const int8_t *next_panel = panel + 1 < dense_panels(d) ? weight + size : weight;
    size_t row = first;
    for (size_t b = 0; b < blocks; b++) {
        const size_t end = first + (b + 1) * rows / blocks; /* blocks of equal size, or one row apart */
        const int n = (int)(end - row);
        const int8_t *next = next_panel + (blocks <= FEW ? b * size / blocks : 0);
        const size_t step = blocks <= FEW ? 64 / blocks : b + 1 == blocks ? 64 : 0;
        GEMM[n]((const uint8_t *)d->x + row * d->inputs, d->inputs, weight, d->inputs / 4, next, step, sums);
        epilogue_of_panel(d, sums, n, row, panel);
        row = end;
    }
}

static void dense_unit(void *operation, size_t unit) {
    const struct dense *d = operation;
    const size_t panels = dense_panels(d), first = unit / panels * DENSE_ROWS;
    dense_panel(d, unit % panels, first, first + DENSE_ROWS < d->rows ? first + DENSE_ROWS : d->rows);
}

static void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset) {
    const __m256i ones = _mm256_set1_epi8(1), by = _mm256_set1_epi32(zero_point);
    const int8_t *w = d->weight;
    for (size_t panel = 0; panel < dense_panels(d); panel++, offset += PANEL) {
        __m256i sums[4];
        for (int j = 0; j < 4; j++) sums[j] = _mm256_setzero_si256();
        for (size_t k = 0; k < d->inputs; k += 4, w += 4 * PANEL)
            for (int j = 0; j < 4; j++)
                sums[j] = add_products(sums[j], ones, _mm256_loadu_si256((const __m256i *)(w + 32 * j)));
        for (int j = 0; j < 4; j++) _mm256_storeu_si256((__m256i *)(offset + 8 * j), _mm256_mullo_epi32(sums[j], by));
    }
}
