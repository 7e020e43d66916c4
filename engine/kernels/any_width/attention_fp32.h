/* Attention in float32, for registers of any width: takes float32, gives eight bits.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax and the sum of values.
 * The file that includes this one includes vector.h of its width before, defines
 *
 *   REGISTERS               registers of a panel of columns; with 6 rows of sums they have to fit the processor's
 *   turn(rows)              rows to columns: lane j of rows[i] to lane i of rows[j], LANES of both
 *
 * and does so between TARGET and END_TARGET.
 */

enum { QUERIES = 6, COLUMNS = LANES * REGISTERS };

/* Keys are counted in blocks of 16, so that their scores fill registers. */
static size_t padded(size_t keys) { return (keys + 15) / 16 * 16; }

/* The arrays in the scratch memory of a head. Both matrices lie in panels of COLUMNS columns, the last one may be narrower, so
 * that a product reads a panel front to back. */
struct scratch {
    float *k;       /* [head, keys]: columns are keys */
    float *v;       /* [keys, head] */
    float *scores;  /* [QUERIES, keys], and then exp(score - largest) */
    float *context; /* [QUERIES, head]: the weighted sum of the values */
};

static struct scratch scratch_arrays(const struct attention *a, char *memory, size_t keys) {
    struct scratch s;
    s.k = (float *)memory;
    s.v = s.k + keys * a->head;
    s.scores = s.v + keys * a->head;
    s.context = s.scores + QUERIES * keys;
    return s;
}

static size_t attention_scratch(const struct attention *a) {
    const size_t keys = padded(a->keys);
    return (sizeof(float) * (2 * keys * a->head + QUERIES * keys + QUERIES * a->head) + 63) / 64 * 64;
}

static size_t panel_width(size_t first, size_t columns) { return columns - first < COLUMNS ? columns - first : COLUMNS; }

/* Pack the keys of one head, which are stride numbers apart; those from length up to keys are 0. */
static void pack_keys(const float *k, size_t stride, size_t length, size_t keys, size_t head, float *out) {
    for (size_t first = 0; first < keys; first += LANES) {
        const size_t panel = first / COLUMNS * COLUMNS, width = panel_width(panel, keys);
        float *to = out + panel * head + first - panel;
        for (size_t d = 0; d < head; d += LANES) {
            vector rows[LANES];
            for (size_t i = 0; i < LANES; i++) rows[i] = first + i < length ? load(k + (first + i) * stride + d) : fill(0);
            turn(rows);
            for (size_t i = 0; i < LANES; i++) store(to + (d + i) * width, rows[i]);
        }
    }
}

/* Pack the values of one head. */
static void pack_values(const float *v, size_t stride, size_t length, size_t head, float *out) {
    for (size_t first = 0; first < head; first += COLUMNS)
        for (size_t i = 0; i < length; i++)
            for (size_t d = first; d < first + panel_width(first, head); d += LANES, out += LANES) store(out, load(v + i * stride + d));
}

/* c = a b for n rows of a, stride apart, and a panel b [depth, m registers]; c has rows of width numbers. */
INLINE void gemm_panel(int n, int m, const float *a, size_t stride, const float *b, size_t depth, float *c, size_t width) {
    vector sums[QUERIES][REGISTERS], right[REGISTERS]; /* all in registers: the loops below are unrolled */
    const float *a3 = a + 3 * stride; /* rows 3 to 5, so that each address is a register and 0, 1 or 2 strides */
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) sums[i][j] = fill(0);
    for (const float *const end = a + depth; a < end; a++, a3++, b += m * LANES) {
        UNROLL(4)
        for (int j = 0; j < m; j++) right[j] = load(b + j * LANES);
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const vector left = fill(i < 3 ? a[i * stride] : a3[(i - 3) * stride]);
            UNROLL(4)
            for (int j = 0; j < m; j++) sums[i][j] = multiply_add(left, right[j], sums[i][j]);
        }
    }
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) store(c + i * width + j * LANES, sums[i][j]);
}

/* A function for each number of rows and registers. */
typedef void gemm_of(const float *, size_t, const float *, size_t, float *, size_t);
#define GEMM_OF(n, m)                                                                                                    \
    static __attribute__((noinline)) void gemm_##n##_##m(const float *a, size_t stride, const float *b, size_t depth,    \
                                                         float *c, size_t width) {                                       \
        gemm_panel(n, m, a, stride, b, depth, c, width);                                                                 \
    }
#if REGISTERS == 4
#define GEMMS_OF(n) GEMM_OF(n, 1) GEMM_OF(n, 2) GEMM_OF(n, 3) GEMM_OF(n, 4)
#define EACH(n) {0, gemm_##n##_1, gemm_##n##_2, gemm_##n##_3, gemm_##n##_4}
#else
#define GEMMS_OF(n) GEMM_OF(n, 1) GEMM_OF(n, 2)
#define EACH(n) {0, gemm_##n##_1, gemm_##n##_2}
#endif
GEMMS_OF(1) GEMMS_OF(2) GEMMS_OF(3) GEMMS_OF(4) GEMMS_OF(5) GEMMS_OF(6)
static gemm_of *const GEMM[QUERIES + 1][REGISTERS + 1] = {{0}, EACH(1), EACH(2), EACH(3), EACH(4), EACH(5), EACH(6)};

/* c [n, columns] = a [n, depth] b, b in panels of depth rows. */
static void gemm(size_t n, const float *a, size_t stride, const float *b, size_t columns, size_t depth, float *c) {
    for (size_t j = 0; j < columns; j += COLUMNS)
        GEMM[n][panel_width(j, columns) / LANES](a, stride, b + j * depth, depth, c + j, columns);
}

/* Replace the scores of a query's keys by exp(score - largest); returns 1 / their sum. */
static float softmax(float *scores, size_t length, size_t keys) {
    for (size_t j = length; j < keys; j++) scores[j] = -INFINITY; /* whose exp is 0 */
    vector largest = fill(-INFINITY), total = fill(0);
    for (size_t j = 0; j < keys; j += LANES) largest = larger(largest, load(scores + j));
    const vector minus_top = fill(-largest_of(largest));
    for (size_t j = 0; j < keys; j += LANES) {
        const vector e = exp_ps(add(load(scores + j), minus_top));
        total = add(total, e);
        store(scores + j, e);
    }
    return 1.0f / sum_of(total);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    const size_t text = unit / a->heads, hidden = a->heads * a->head, column = unit % a->heads * a->head;
    size_t length = a->keys;
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < length) length = (size_t)a->lengths[text];
    const size_t keys = padded(length), queries = a->queries == a->keys || !length ? length : a->queries;
    const struct scratch s = scratch_arrays(a, a->scratch + unit * attention_scratch(a), keys);
    const size_t start = text * a->queries * hidden + column, source = text * a->keys * hidden + column;
    pack_keys((const float *)a->k + source, hidden, length, keys, a->head, s.k);
    pack_values((const float *)a->v + source, hidden, length, a->head, s.v);
    const float *q = (const float *)a->q + start;
    uint8_t *y = a->y8 + start;
    const size_t blocks = (queries + QUERIES - 1) / QUERIES;
    for (size_t b = 0, row = 0; b < blocks; b++) {
        const size_t end = (b + 1) * queries / blocks, n = end - row;
        gemm(n, q + row * hidden, hidden, s.k, keys, a->head, s.scores);
        float inverse[QUERIES];
        for (size_t i = 0; i < n; i++) inverse[i] = softmax(s.scores + i * keys, length, keys);
        gemm(n, s.scores, keys, s.v, a->head, length, s.context);
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < a->head; d += LANES)
                store_rounded(y + (row + i) * hidden + d, LANES, multiply(load(s.context + i * a->head + d), fill(inverse[i])),
                              a->rounding);
        row = end;
    }
    for (size_t row = queries; row < a->queries; row++) memset(y + row * hidden, a->rounding.zero_point, a->head); /* padding: 0 */
}
