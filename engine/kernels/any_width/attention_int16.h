/* Attention in 16-bit fixed point, for registers of any width: takes float32, gives eight bits.
 *
 * The processors that run it have VNNI but no bfloat16. Their vpdpwssd adds two products of 16 bits to each sum of 32 bits, so it
 * multiplies twice as fast as float32. What is multiplied is rounded to whole steps, a step being a share of the largest number
 * of a query, or of the head's keys or values in the text, or of a query's weights. There are as many as sums of 32 bits can hold,
 * and so more digits than bfloat16 has, except in numbers far below the largest.
 *
 * The keys and values of a head are packed once; then 6 queries at a time get their scores, the softmax (float32) and the sum of
 * values. The file that includes this one includes vector.h of its width before, defines
 *
 *   REGISTERS                registers of a panel of columns; with 6 rows of sums they have to fit the processor's
 *   add_products(sums, a, b) vpdpwssd
 *
 * and does so between TARGET and END_TARGET.
 */

#include "attention.h"

enum { QUERIES = 6, COLUMNS = LANES * REGISTERS };
static const float LOG2_E = 1.44269504f;
static const float SUM_LIMIT = 2.1e9f; /* below 2^31 */
static const float VALUE_LIMIT = 4095; /* steps of the largest value: 13 bits with the sign, which leaves 18 for the weights' sum */

/* The arrays in the scratch memory of a head. Both matrices lie in panels of COLUMNS columns, the last one may be narrower, so
 * that a product reads a panel front to back. */
struct scratch {
    float *scores;  /* [QUERIES, keys that are seen], and then 2^(score - largest) */
    float *context; /* [QUERIES, head]: the weighted sum of the values */
    int16_t *k;     /* [head / 2, keys, 2]: pairs of a key's numbers, keys side by side */
    int16_t *v;     /* [keys / 2, head, 2]: pairs of keys, a key's numbers side by side */
    int16_t *q;     /* [QUERIES, head] */
    int16_t *p;     /* [QUERIES, keys that are seen]: their weights */
};

static struct scratch scratch_arrays(const struct attention *a, char *memory) {
    const size_t keys = most_packed(a, a->keys);
    struct scratch s;
    s.scores = (float *)memory;
    s.context = s.scores + QUERIES * longest_row(a, QUERIES, a->keys);
    s.k = (int16_t *)(s.context + QUERIES * a->head);
    s.v = s.k + keys * a->head;
    s.q = s.v + keys * a->head;
    s.p = s.q + QUERIES * a->head;
    return s;
}

static size_t attention_scratch(const struct attention *a) {
    const size_t keys = most_packed(a, a->keys), rows = QUERIES * (longest_row(a, QUERIES, a->keys) + a->head);
    return (sizeof(float) * rows + sizeof(int16_t) * (rows + 2 * keys * a->head) + 63) / 64 * 64;
}

static size_t panel_width(size_t first, size_t columns) { return columns - first < COLUMNS ? columns - first : COLUMNS; }

/* A head's keys or values. */
struct rows {
    const float *data;
    size_t stride, count; /* numbers from one row to the next; rows of the text, without padding */
    float step;           /* what 1 stands for in 16 bits; NaN if a number is not finite, and then so are the head's results */
};

/* The step that makes the largest of sizes so many steps; NaN for infinity and NaN. Never so small that the product of two is
 * no normal number. */
static float step_of(words sizes, float limit) {
    const float largest = largest_size(sizes);
    return (largest < 1e-14f ? 1e-14f : largest) / limit + (largest - largest);
}

/* The keys or values of a head from a span, with the step that makes their largest number so many steps. */
static __attribute__((noinline)) struct rows rows_of(const struct attention *a, const float *head, struct span span, float limit) {
    struct rows m = {.stride = a->heads * a->head, .count = span.last - span.first};
    m.data = head + span.first * m.stride;
    words sizes = zero_words();
    for (size_t i = 0; i < m.count; i++) {
        fetch(m.data, 4 * m.stride, 4 * a->head, i + 16, 1, m.count);
        for (size_t d = 0; d < a->head; d += LANES) sizes = larger_words(sizes, size_of(load(m.data + i * m.stride + d)));
    }
    m.step = step_of(sizes, limit);
    return m;
}

/* LANES numbers of a row from d on, in steps; zeros beyond the text. */
INLINE vector steps_of(struct rows m, size_t row, size_t d, vector per_step) {
    return row < m.count ? multiply(load(m.data + row * m.stride + d), per_step) : fill(0);
}

/* Pack the keys of one head. */
static __attribute__((noinline)) void pack_keys(struct rows k, size_t keys, size_t head, int16_t *out) {
    const vector per_step = fill(1 / k.step);
    for (size_t first = 0; first < keys; first += LANES) {
        const size_t panel = first / COLUMNS * COLUMNS, width = panel_width(panel, keys);
        int16_t *to = out + panel * head + 2 * (first - panel);
        for (size_t d = 0; d < head; d += 2 * LANES) {
            const int all = d + LANES < head; /* else half */
            words pairs[LANES];
            for (size_t i = 0; i < LANES; i++)
                pairs[i] = round_to_pairs(steps_of(k, first + i, d, per_step),
                                          all ? steps_of(k, first + i, d + LANES, per_step) : fill(0));
            transpose(pairs);
            for (size_t j = 0; j < (all ? LANES : LANES / 2); j++) store_words(to + (d + 2 * j) * width, pairs[j]);
        }
    }
}

/* Pack the values of one head. */
static __attribute__((noinline)) void pack_values(struct rows v, size_t head, int16_t *out) {
    const vector per_step = fill(1 / v.step);
    for (size_t first = 0; first < head; first += COLUMNS)
        for (size_t i = 0; i < v.count; i += 2)
            for (size_t d = first; d < first + panel_width(first, head); d += LANES, out += 2 * LANES)
                store_words(out, round_side_by_side(steps_of(v, i, d, per_step), steps_of(v, i + 1, d, per_step)));
}

/* Round a query to steps, and return its step. */
INLINE float round_query(const float *q, size_t head, float limit, int16_t *out) {
    words sizes = zero_words();
    for (size_t d = 0; d < head; d += LANES) sizes = larger_words(sizes, size_of(load(q + d)));
    const float step = step_of(sizes, limit);
    for (size_t d = 0; d < head; d += LANES) store_int16(out + d, multiply(load(q + d), fill(1 / step)));
    return step;
}

/* c = a b for n rows of a, stride apart, and m registers of columns of b [pairs, columns, 2]; c has rows of width numbers. */
INLINE void gemm_panel(int n, int m, const int16_t *a, size_t stride, const int16_t *b, size_t columns, size_t pairs, float *c,
                       size_t width) {
    words sums[QUERIES][REGISTERS], right[REGISTERS]; /* all in registers: the loops below are unrolled */
    const int16_t *a3 = a + 3 * stride; /* rows 3 to 5, so that each address is a register and 0, 1 or 2 strides */
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) sums[i][j] = zero_words();
    for (const int16_t *const end = a + 2 * pairs; a < end; a += 2, a3 += 2, b += 2 * columns) {
        UNROLL(4)
        for (int j = 0; j < m; j++) right[j] = load_words(b + 2 * j * LANES);
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            const words left = repeat_pair(i < 3 ? a + i * stride : a3 + (i - 3) * stride);
            UNROLL(4)
            for (int j = 0; j < m; j++) sums[i][j] = add_products(sums[i][j], left, right[j]);
        }
    }
    UNROLL(6)
    for (int i = 0; i < n; i++)
        UNROLL(4)
        for (int j = 0; j < m; j++) {
            words sum = sums[i][j];
            __asm__("" : "+x"(sum)); /* seen as another type from here on, or gcc keeps all sums in memory */
            store(c + i * width + j * LANES, to_float(sum));
        }
}

/* A function for each number of rows and registers. */
typedef void gemm_of(const int16_t *, size_t, const int16_t *, size_t, size_t, float *, size_t);
#define GEMM_OF(n, m)                                                                                                        \
    static __attribute__((noinline)) void gemm_##n##_##m(const int16_t *a, size_t stride, const int16_t *b, size_t columns,  \
                                                         size_t pairs, float *c, size_t width) {                             \
        gemm_panel(n, m, a, stride, b, columns, pairs, c, width);                                                            \
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

/* A matrix in panels, [pairs, columns of a panel, 2] each; and a part of it. */
struct panels {
    const int16_t *data;
    size_t columns, pairs;
};
struct part {
    size_t column, columns, pair, pairs; /* first and number */
};

/* c [n, columns of the part] = a [n, 2 pairs of the part] b. */
static void gemm(size_t n, const int16_t *a, size_t stride, struct panels b, struct part part, float *c) {
    for (size_t j = part.column, end = part.column + part.columns, some; j < end; j += some) {
        const size_t panel = j / COLUMNS * COLUMNS, width = panel_width(panel, b.columns);
        const int16_t *from = b.data + 2 * (panel * b.pairs + part.pair * width + j - panel);
        some = (panel + width < end ? panel + width : end) - j;
        GEMM[n][some / LANES](a, stride, from, width, part.pairs, c + j - part.column, part.columns);
    }
}

/* The keys from length on do not count: the power of minus infinity is 0. */
INLINE void hide_padding(size_t n, float *scores, size_t length, size_t keys) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = length; j < keys; j++) scores[i * keys + j] = -INFINITY;
}

/* The weights of the keys of n queries, 2^(factor (score - largest)), as steps in p; share is what a step is of their sum. The
 * largest scores by lane are in top, there are keys in a row, and at most so many weigh something. Queries go side by side, so that
 * none waits for the steps of another. */
INLINE void weights_of(int n, float *scores, vector *top, const float *factor, size_t keys, size_t most, int16_t *p, float *share) {
    vector total[3];
    UNROLL(3)
    for (int i = 0; i < n; i++) top[i] = fill(-largest_of(top[i]) * factor[i]), total[i] = fill(0);
    for (size_t j = 0; j < keys; j += LANES)
        UNROLL(3)
        for (int i = 0; i < n; i++) {
            const vector e = exp2_ps(multiply_add(load(scores + i * keys + j), fill(factor[i]), top[i]));
            total[i] = add(total[i], e);
            store(scores + i * keys + j, e);
        }
    vector weight[3];
    UNROLL(3)
    for (int i = 0; i < n; i++) {
        const float sum = sum_of(total[i]), limit = (SUM_LIMIT / VALUE_LIMIT - (float)most) / sum;
        const float w = limit < INT16_MAX ? limit : INT16_MAX;
        weight[i] = fill(w), share[i] = 1 / (w * sum);
    }
    for (size_t j = 0; j < keys; j += LANES)
        UNROLL(3)
        for (int i = 0; i < n; i++) store_int16(p + i * keys + j, multiply(load(scores + i * keys + j), weight[i]));
}

INLINE void softmax(int n, float *scores, const float *factor, size_t length, size_t keys, size_t most, int16_t *p, float *share) {
    vector top[3];
    hide_padding((size_t)n, scores, length, keys);
    UNROLL(3)
    for (int i = 0; i < n; i++) top[i] = fill(-INFINITY);
    for (size_t j = 0; j < keys; j += LANES)
        UNROLL(3)
        for (int i = 0; i < n; i++) top[i] = larger(top[i], load(scores + i * keys + j));
    weights_of(n, scores, top, factor, keys, most, p, share);
}

/* One head of one text. */
struct head {
    const struct attention *a;
    const float *q, *k, *v;
    uint8_t *y;
    size_t queries, length, stride; /* without padding; stride: numbers from one row to the next */
    float limit;           /* the most steps of a number of a query or key: head limit^2 is a sum */
};

/* The keys and values that are packed for a chunk, and what 1 stands for in them. */
struct packed {
    struct panels k, v;
    struct span span;
    float k_step, v_step;
};

/* The results of n queries from row on. */
INLINE void store_context(const struct head *h, const float *context, float v_step, const float *share, size_t row, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < h->a->head; d += LANES)
            store_rounded(h->y + (row + i) * h->stride + d, LANES,
                          multiply(load(context + i * h->a->head + d), fill(v_step * share[i])), h->a->rounding);
}

/* The queries from row up to end, of which there are at most QUERIES. */
INLINE void attend_block(const struct head *h, const struct scratch *s, const struct packed *packed, size_t row, size_t end) {
    const struct attention *a = h->a;
    const struct span span = span_of(a, row, end, h->length);
    const size_t n = end - row, first = span.first - packed->span.first, wide = span.row, seen = span.last - span.first;
    const size_t most = longest_row(a, 1, h->length); /* keys that a query sees */
    float factor[QUERIES], share[QUERIES];
    for (size_t i = 0; i < n; i++)
        factor[i] = LOG2_E * packed->k_step * round_query(h->q + (row + i) * h->stride, a->head, h->limit, s->q + i * a->head);
    fetch(h->q, 4 * h->stride, 4 * a->head, end, QUERIES, h->queries);
    gemm(n, s->q, a->head, packed->k, (struct part){first, wide, 0, a->head / 2}, s->scores);
    hide(a, span, row, end, s->scores);
    size_t i = 0;
    for (; i + 3 <= n; i += 3) softmax(3, s->scores + i * wide, factor + i, seen, wide, most, s->p + i * wide, share + i);
    for (; i < n; i++) softmax(1, s->scores + i * wide, factor + i, seen, wide, most, s->p + i * wide, share + i);
    gemm(n, s->p, wide, packed->v, (struct part){0, a->head, first / 2, (seen + 1) / 2}, s->context);
    store_context(h, s->context, packed->v_step, share, row, n);
}

/* The queries from begin up to end, in blocks of equal size, or one apart. */
static void attend_chunk(const struct head *h, const struct scratch *s, size_t begin, size_t end) {
    const struct attention *a = h->a;
    const struct span span = span_of(a, begin, end, h->length);
    const struct rows k = rows_of(a, h->k, span, h->limit), v = rows_of(a, h->v, span, VALUE_LIMIT);
    const struct packed packed = {{s->k, span.row, a->head / 2}, {s->v, a->head, (v.count + 1) / 2},
                                  span, k.step, v.step};
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES;
    pack_keys(k, span.row, a->head, s->k);
    pack_values(v, a->head, s->v);
    for (size_t b = 0; b < blocks; b++)
        attend_block(h, s, &packed, begin + b * queries / blocks, begin + (b + 1) * queries / blocks);
}

static struct head head_of(const struct attention *a, size_t text, size_t of_head) {
    const size_t hidden = a->heads * a->head, at = of_head * a->head;
    struct head h = {.a = a, .length = a->keys, .stride = hidden};
    if (a->lengths && a->lengths[text] >= 0 && (size_t)a->lengths[text] < a->keys) h.length = (size_t)a->lengths[text];
    const size_t keys = text * a->keys * hidden + at;
    h.queries = a->queries == a->keys || !h.length ? h.length : a->queries;
    h.limit = (float)(int)_mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(SUM_LIMIT / (float)a->head)));
    h.q = (const float *)a->q + text * a->queries * hidden + at, h.k = (const float *)a->k + keys, h.v = (const float *)a->v + keys;
    h.y = a->y8 + text * a->queries * hidden + at;
    return h;
}

/* Rows of padding: 0. */
static void store_padding(const struct head *h) {
    for (size_t row = h->queries; row < h->a->queries; row++) memset(h->y + row * h->stride, h->a->rounding.zero_point, h->a->head);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    const struct head h = head_of(a, unit / a->heads, unit % a->heads);
    const struct scratch s = scratch_arrays(a, a->scratch + unit * attention_scratch(a));
    for (size_t begin = 0, end; begin < h.queries; begin = end) attend_chunk(&h, &s, begin, end = chunk_end(a, begin, h.queries));
    store_padding(&h);
}
