/* Disentangled attention in 16-bit fixed point, for registers of any width: takes float32, gives eight bits.
 *
 * The tables are bfloat16, and constants. The columns that a text meets are brought to steps for each of its heads: at 128 tokens
 * that is a twentieth of the time, and steps that are kept would take as much memory as the tables. Each column has its own step,
 * so its bits depend on nothing else. Products are brought to float32 before they are added, as powers of 2: log2(e) is in the
 * steps.
 *
 * The file that includes this one includes attention_int16.h before, and does so between TARGET and END_TARGET.
 */

typedef int16_t number;
enum { IN_STEPS = 1 };
#include "disentangled.h"

/* The columns of a table for the buckets from first to last, as steps in out; unit: what is in their steps, too. */
static __attribute__((noinline)) struct table table_in_steps(size_t pairs, struct table table, size_t first, size_t last,
                                                             float limit, float unit, size_t width, int16_t *out, float *steps) {
    const size_t stride = 2 * table.columns;
    first = first / KEYS * KEYS; /* whole lines of the cache */
    for (size_t column = 0; column <= last - first; column += LANES) {
        const int16_t *const from = table.data + 2 * (first + column);
        words sizes = zero_words();
        for (size_t i = 0; i < pairs; i++) {
            const words pair = load_words(from + i * stride);
            sizes = larger_words(sizes, larger_words(size_of(lower_bf16(pair)), size_of(upper_bf16(pair))));
        }
        const vector size = larger((vector)sizes, fill(1e-14f)), per_step = divide(fill(limit), size);
        store(steps + column, multiply(divide(size, fill(limit)), fill(unit)));
        for (size_t i = 0; i < pairs; i++) {
            const words pair = load_words(from + i * stride);
            store_words(out + 2 * (i * width + column),
                        round_side_by_side(multiply(lower_bf16(pair), per_step), multiply(upper_bf16(pair), per_step)));
        }
    }
    return (struct table){out, width, first, steps};
}

/* A head's tables, keys and values, and what 1 stands for in them. */
struct in_steps {
    struct tables tables;
    struct panels k, v;
    float k_step, v_step;
};

/* What 1 stands for in the scores and in c2p of a block's queries. */
struct units {
    float score[QUERIES], c2p[QUERIES];
};

/* The scores of n queries of a block with positions, from one on; the largest by lane are in top. */
INLINE void add_positions(int n, size_t from, const struct positions *p, const struct units *u, float *scores, size_t keys,
                          vector *top) {
    UNROLL(3)
    for (int i = 0; i < n; i++) top[i] = fill(-INFINITY);
    for (size_t j = 0; j < keys; j += LANES)
        UNROLL(3)
        for (int i = 0; i < n; i++) {
            const size_t row = from + (size_t)i;
            vector score = multiply_add(c2p_of(p, row, j), fill(u->c2p[row]), load(p->p2c + row * p->p2c_width + j));
            score = multiply_add(load(scores + row * keys + j), fill(u->score[row]), score);
            store(scores + row * keys + j, score);
            top[i] = larger(top[i], score);
        }
}

/* The weights of n queries of a block, from one on. */
INLINE void weigh(int n, size_t from, const struct positions *p, const struct units *u, const struct arrays *s, size_t keys,
                  float *share) {
    static const float one[] = {1, 1, 1};
    vector top[3];
    add_positions(n, from, p, u, s->scores, keys, top);
    weights_of(n, s->scores + from * keys, top, one, keys, keys, s->p + from * keys, share + from);
}

/* The queries from row up to end, of which there are at most QUERIES; begin: the first of their chunk. */
static void attend_rows(const struct disentangled *d, const struct head *h, const struct arrays *s, const struct in_steps *t,
                        size_t begin, size_t row, size_t end) {
    const size_t n = end - row, keys = padded(h->length), head = h->a->head;
    struct units u;
    for (size_t i = 0; i < n; i++) {
        const float step = round_query(h->q + (row + i) * h->stride, head, h->limit, s->q + i * head);
        u.score[i] = LOG2_E * t->k_step * step, u.c2p[i] = t->tables.bias ? 1 : step;
    }
    fetch(h->q, 4 * h->stride, 4 * head, end, QUERIES, h->queries);
    gemm(n, s->q, head, t->k, (struct part){0, keys, 0, head / 2}, s->scores);
    hide_padding(n, s->scores, h->length, keys);
    const struct positions p = positions_of(d, &t->tables, s, begin, row, n, keys);
    float share[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) weigh(3, i, &p, &u, s, keys, share);
    for (; i < n; i++) weigh(1, i, &p, &u, s, keys, share);
    gemm(n, s->p, keys, t->v, (struct part){0, head, 0, t->v.pairs}, s->scores); /* the scores have been read */
    store_context(h, s->scores, t->v_step, share, row, n);
}

/* Bring what a text meets of a head's tables to steps. */
static void bring_to_steps(const struct disentangled *d, const struct head *h, const struct arrays *s, float k_step,
                           struct tables *t) {
    const int32_t *here = d->rising + d->middle;
    const size_t first = (size_t)(here + 1)[-(ptrdiff_t)padded(h->length)], last = (size_t)here[padded(h->queries) - 1];
    const size_t width = s->table_width, pairs = h->a->head / 2;
    fetch_columns(d, t->by_query.data, first, last), fetch_columns(d, t->by_key.data, first, last);
    if (t->by_query.data) {
        t->by_query = table_in_steps(pairs, t->by_query, first, last, h->limit, LOG2_E, width, s->by_query, s->by_query_steps);
    } else {
        t->by_query.first = first, t->by_query.steps = s->by_query_steps;
        for (size_t i = 0; i < width; i++) s->by_query_steps[i] = LOG2_E;
    }
    if (t->by_key.data)
        t->by_key = table_in_steps(pairs, t->by_key, first, last, h->limit, LOG2_E * k_step, width, s->by_key, s->by_key_steps);
}

/* Pack a head's keys and values. */
static struct in_steps pack(const struct disentangled *d, const struct head *h, const struct arrays *s, size_t of_head) {
    const size_t keys = padded(h->length), head = h->a->head;
    const struct span all = {0, h->length, keys};
    const struct rows k = rows_of(h->a, h->k, all, h->limit), v = rows_of(h->a, h->v, all, VALUE_LIMIT);
    const vector per_step = fill(1 / k.step);
    pack_keys(k, keys, head, s->k);
    pack_values(v, head, s->v);
    for (size_t i = 0; i < keys && d->position_query; i++)
        for (size_t n = 0; n < head; n += LANES) store_int16(s->rows + i * head + n, steps_of(k, i, n, per_step));
    return (struct in_steps){tables_of(d, of_head), {s->k, keys, head / 2}, {s->v, head, (v.count + 1) / 2}, k.step, v.step};
}

static void attend(const struct disentangled *d, const struct head *h, const struct arrays *s, size_t of_head) {
    struct in_steps t = pack(d, h, s, of_head);
    const size_t chunk = chunk_of(h->queries, s->chunk), keys = padded(h->length);
    bring_to_steps(d, h, s, t.k_step, &t.tables);
    clear_absent(d, s);
    for (size_t begin = 0, queries; begin < h->queries; begin += queries) {
        queries = h->queries - begin < chunk ? h->queries - begin : chunk;
        for (size_t key = 0; t.tables.by_key.data && key < keys; key += KEYS)
            score_by_keys(d, s, t.tables.by_key, key, begin, queries);
        const size_t blocks = (queries + QUERIES - 1) / QUERIES;
        for (size_t b = 0; b < blocks; b++)
            attend_rows(d, h, s, &t, begin, begin + b * queries / blocks, begin + (b + 1) * queries / blocks);
    }
}

static void disentangled_unit(void *operation, size_t unit) {
    struct disentangled *d = operation;
    const struct attention *a = &d->attention;
    const size_t slot = take_slot(&d->free), of_head = unit / a->batch;
    const struct arrays scratch = arrays_of(d, (uintptr_t)a->scratch + slot * disentangled_scratch(a));
    const struct head h = head_of(a, unit % a->batch, of_head);
    if (h.queries) attend(d, &h, &scratch, of_head);
    store_padding(&h);
    give_slot(&d->free, slot);
}
