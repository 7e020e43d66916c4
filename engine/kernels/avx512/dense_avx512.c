/* Dense in float32 with AVX-512, on the weights as ONNX has them, [inputs, outputs]: so nothing is held twice.
 *
 * Of a strip of columns, a block of inputs at a time is copied to the stack, where blocks of up to 14 rows take turns at it. For few
 * rows, reading the weights is the work: the first rows copy what they multiply, and while they do so the next block is fetched,
 * each of its rows in one go, because memory is slow to go from row to row. Between two blocks the sums wait in y.
 *
 * An output is one chain of multiply-adds over all inputs, for any number of rows. The bias is added last: a large one would take the
 * last digits of each step.
 */
#include "../levels.h"
#include "avx512.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq")

enum {
    ROWS = 14, /* of a block: 28 of the 32 registers are sums */
    PANELS = STRIP / PANEL,
    DEEP = 256, FLAT = 64 /* inputs of a block of weights, for many rows and for few: in the second cache, in the first */
};

/* A strip of a product while it is computed. */
struct strip {
    const struct dense *d;
    size_t column, from, depth; /* first column; first input and number of inputs of the block */
    const float *next;          /* weights that are fetched next, one row of the strip after so many inputs; so many rows */
    size_t every, left;
    _Alignas(64) float weight[DEEP * STRIP]; /* the block, by panels: [PANELS, depth, PANEL] */
};

INLINE void fetch_row(const float *row) {
    UNROLL(8)
    for (int i = 0; i < STRIP; i += 16) _mm_prefetch((const char *)(row + i), _MM_HINT_T1);
}

/* Add the products of a block of weights to the sums of n rows and one panel, and copy the panel if these rows are the first.
 * Rows of x are addressed in threes, as in panels.h. */
INLINE void multiply(int n, int copies, struct strip *s, size_t row, size_t panel) {
    const struct dense *d = s->d;
    const size_t column = s->column + PANEL * panel, stride = d->inputs, outputs = d->outputs, every = s->every;
    const __mmask16 some = lanes(outputs - column), more = outputs - column > 16 ? lanes(outputs - column - 16) : 0;
    float *const y = d->y + row * outputs + column;
    const float *x = (const float *)d->x + row * stride + s->from, *threes[5], *next = s->next;
    __m512 left[ROWS], right[ROWS]; /* all in registers: the loops below are unrolled */
    UNROLL(5)
    for (int j = 0; j < 5; j++) threes[j] = x + (size_t)(3 * j) * stride;
    if (s->from) {
        UNROLL(16)
        for (size_t i = 0; i < (size_t)n; i++) {
            left[i] = _mm512_maskz_loadu_ps(some, y + i * outputs);
            right[i] = _mm512_maskz_loadu_ps(more, y + i * outputs + 16);
        }
    } else {
        UNROLL(16)
        for (int i = 0; i < n; i++) left[i] = right[i] = _mm512_setzero_ps();
    }
    size_t until = every, rest = s->left;
    const float *matrix = (const float *)d->weight + s->from * outputs + column;
    float *w = s->weight + panel * s->depth * PANEL;
    for (const float *const end = w + s->depth * PANEL; w < end; w += PANEL) {
        __m512 w0, w1;
        if (copies) {
            w0 = _mm512_maskz_loadu_ps(some, matrix), w1 = _mm512_maskz_loadu_ps(more, matrix + 16);
            _mm512_store_ps(w, w0), _mm512_store_ps(w + 16, w1);
            matrix += outputs;
        } else w0 = _mm512_load_ps(w), w1 = _mm512_load_ps(w + 16);
        if (--until == 0 && rest) {
            fetch_row(next);
            next += outputs, rest--, until = every;
        }
        UNROLL(16)
        for (int i = 0; i < n; i++) {
            const __m512 a = _mm512_set1_ps(threes[i / 3][(size_t)(i % 3) * stride]);
            left[i] = _mm512_fmadd_ps(a, w0, left[i]);
            right[i] = _mm512_fmadd_ps(a, w1, right[i]);
        }
        UNROLL(5)
        for (int j = 0; j < (n + 2) / 3; j++) {
            threes[j]++;
            __asm__("" : "+r"(threes[j])); /* one register each, not one shared index and a sum for every row */
        }
    }
    s->next = next, s->left = rest;
    if (s->from + s->depth == d->inputs) {
        const __m512 b0 = bias_ps(d, some, column), b1 = bias_ps(d, more, column + 16);
        UNROLL(16)
        for (int i = 0; i < n; i++) left[i] = _mm512_add_ps(left[i], b0), right[i] = _mm512_add_ps(right[i], b1);
    }
    UNROLL(16)
    for (size_t i = 0; i < (size_t)n; i++) {
        store_ps(y + i * outputs, some, left[i]);
        if (more) store_ps(y + i * outputs + 16, more, right[i]);
    }
}

/* Functions for each number of rows, so that its sums stay in registers. */
typedef void multiply_of(struct strip *, size_t, size_t);
#define FUNCTION(name, n, copies) \
    static __attribute__((noinline)) void name##_##n(struct strip *s, size_t row, size_t panel) { multiply(n, copies, s, row, panel); }
#define MULTIPLY_OF(n) FUNCTION(multiply, n, 0) FUNCTION(copying, n, 1)
FUNCTION(copying, 1, 1) FUNCTION(copying, 2, 1) FUNCTION(copying, 3, 1) FUNCTION(copying, 4, 1) FUNCTION(copying, 5, 1)
FUNCTION(copying, 6, 1) MULTIPLY_OF(7) MULTIPLY_OF(8) MULTIPLY_OF(9) MULTIPLY_OF(10) MULTIPLY_OF(11) MULTIPLY_OF(12)
MULTIPLY_OF(13) MULTIPLY_OF(14)
static multiply_of *const MULTIPLY[ROWS + 1] = {
    [7] = multiply_7, multiply_8, multiply_9, multiply_10, multiply_11, multiply_12, multiply_13, multiply_14,
}; /* of two blocks or more, none has fewer than 7 rows */
static multiply_of *const COPYING[ROWS + 1] = {
    0,         copying_1, copying_2,  copying_3,  copying_4,  copying_5,  copying_6, copying_7,
    copying_8, copying_9, copying_10, copying_11, copying_12, copying_13, copying_14,
};

/* Copy a block of weights, with 0 for columns that are not there. */
static void copy_weights(struct strip *s) {
    const size_t outputs = s->d->outputs;
    const float *w = (const float *)s->d->weight + s->from * outputs + s->column;
    for (size_t k = 0; k < s->depth; k++, w += outputs) {
        UNROLL(8)
        for (size_t i = 0; i < STRIP; i += 16) {
            const __mmask16 some = s->column + i < outputs ? lanes(outputs - s->column - i) : 0;
            _mm512_store_ps(s->weight + (i / PANEL * s->depth + k) * PANEL + i % PANEL, _mm512_maskz_loadu_ps(some, w + i));
        }
    }
}

/* Say what is fetched during a block: the next one, and at the end of the strip the first one of the strip beside it. */
static void plan(struct strip *s, size_t most, size_t calls) {
    const struct dense *d = s->d;
    const size_t done = s->from + s->depth, beside = s->column + STRIP, rest = d->inputs - done;
    const size_t row = rest ? done : 0, column = rest ? s->column : beside, rows = rest ? rest : d->inputs;
    s->next = (const float *)d->weight + row * d->outputs + column;
    s->left = column >= d->outputs ? 0 : rows < most ? rows : most;
    s->every = calls;
}

static void strip_unit(void *operation, size_t unit) {
    const struct dense *d = operation;
    const size_t strips = dense_strips(d), first = unit / strips * DENSE_ROWS;
    const size_t rows = d->rows - first < DENSE_ROWS ? d->rows - first : DENSE_ROWS, blocks = (rows + ROWS - 1) / ROWS;
    const int few = rows <= 2 * ROWS;
    const size_t most = few ? FLAT : DEEP;
    struct strip s;
    s.d = d, s.column = unit % strips * STRIP;
    const size_t columns = d->outputs - s.column, panels = columns < STRIP ? (columns + PANEL - 1) / PANEL : PANELS;
    for (s.from = 0; s.from < d->inputs; s.from += s.depth) {
        s.depth = d->inputs - s.from < most ? d->inputs - s.from : most;
        if (!few) copy_weights(&s);
        plan(&s, most, few ? panels : panels * blocks);
        for (size_t b = 0, row = 0; b < blocks; b++) {
            const size_t end = (b + 1) * rows / blocks; /* blocks of equal size, or one row apart */
            for (size_t panel = 0; panel < panels; panel++)
                (few && !b ? COPYING : MULTIPLY)[end - row](&s, first + row, panel);
            row = end;
        }
    }
}

END_TARGET

const struct kernel dense_avx512 = {.unit = strip_unit, .cost = 1 / 115.0};
