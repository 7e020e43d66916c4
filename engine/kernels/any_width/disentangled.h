/* Disentangled attention (He et al. 2021) for registers of any width: what positions add to the scores.
 *
 * The products of a block's queries with the buckets that it needs are a product of matrices, columns of the table being side by
 * side. Of LANES keys next to each other the buckets are at most LANES next to each other: a load and a permutation bring the
 * products to their keys. The products of keys likewise, 16 keys with the buckets of a chunk of queries, and then rows become
 * columns.
 *
 * The file that includes this one includes vector.h of its width before, and attention with its blocks of products: GEMM, of at
 * most QUERIES rows and REGISTERS registers. It defines
 *
 *   number    what is multiplied, of 2 bytes
 *   IN_STEPS  1: columns of tables are whole steps, each column has its own step; else 0
 *
 * and includes it between TARGET and END_TARGET.
 */

enum { MOST_QUERIES = 192, FEWEST_QUERIES = 48, MOST_SCORES = 96 << 10 }; /* of a chunk of queries, whose p2c is kept */

/* The arrays in the scratch memory of a head: those of plain attention, and what positions need. A term that is not there
 * is one row of zeros. */
struct arrays {
    number *k, *v; /* packed */
    float *scores; /* [QUERIES, keys], and then [QUERIES, head] */
    number *p;     /* [QUERIES, keys] */
    number *q;     /* [QUERIES, head] */
    float *c2p;    /* [QUERIES, c2p_width]: a block of queries by buckets */
    number *rows;  /* [keys, head]: the keys again, not packed */
    float *tile;   /* [KEYS, tile_width]: 16 keys by buckets */
    float *p2c;    /* [chunk, p2c_width]: the scores that keys give to a chunk of queries */
    number *by_query, *by_key;            /* [head / 2, table_width, 2]: columns of the tables, if IN_STEPS */
    float *by_query_steps, *by_key_steps; /* [table_width]: what 1 stands for in each */
    size_t c2p_width, tile_width, p2c_width, table_width, chunk, bytes;
};

/* The queries of a chunk, of equal size and full registers, if it has at most so many. */
static size_t chunk_of(size_t queries, size_t most) {
    const size_t chunks = (queries + most - 1) / most;
    return chunks ? padded((queries + chunks - 1) / chunks) : KEYS;
}

static size_t most_queries(size_t keys) {
    const size_t most = MOST_SCORES / padded(keys) / KEYS * KEYS;
    return most > MOST_QUERIES ? MOST_QUERIES : longer(most, FEWEST_QUERIES);
}

/* A row for the buckets that so many neighbours meet, and a register that a load at the last reaches into. */
static size_t width_of(const struct disentangled *d, size_t distances) {
    const size_t buckets = d->columns - SPARE;
    return padded(distances < buckets ? distances : buckets) + KEYS;
}

/* So many numbers of a size from *memory on, which moves behind them. */
static void *array(uintptr_t *memory, size_t count, size_t size) {
    const uintptr_t start = *memory;
    *memory += (count * size + 63) / 64 * 64;
    return (void *)start;
}

static struct arrays arrays_of(const struct disentangled *d, uintptr_t memory) {
    const struct attention *a = &d->attention;
    const uintptr_t start = memory;
    const size_t keys = padded(a->keys), head = a->head, c2p = d->position_key != NULL, p2c = d->position_query != NULL;
    struct arrays s = {.chunk = chunk_of(a->queries, most_queries(keys)), .p2c_width = keys + KEYS};
    s.c2p_width = width_of(d, keys + QUERIES - 1), s.tile_width = width_of(d, s.chunk + KEYS - 1);
    s.table_width = IN_STEPS * (width_of(d, keys + padded(a->queries) - 1) + KEYS);
    s.k = array(&memory, keys * head, sizeof *s.k), s.v = array(&memory, keys * head, sizeof *s.v);
    s.scores = array(&memory, QUERIES * longer(keys, head), sizeof *s.scores);
    s.p = array(&memory, QUERIES * keys, sizeof *s.p), s.q = array(&memory, QUERIES * head, sizeof *s.q);
    s.c2p = array(&memory, (c2p ? QUERIES : 1) * s.c2p_width, sizeof *s.c2p);
    s.rows = array(&memory, p2c * keys * head, sizeof *s.rows);
    s.tile = array(&memory, p2c * KEYS * s.tile_width, sizeof *s.tile);
    s.p2c = array(&memory, (p2c ? s.chunk : 1) * s.p2c_width, sizeof *s.p2c);
    s.by_query = array(&memory, c2p * head * s.table_width, sizeof *s.by_query);
    s.by_key = array(&memory, p2c * head * s.table_width, sizeof *s.by_key);
    s.by_query_steps = array(&memory, s.table_width, sizeof *s.by_query_steps);
    s.by_key_steps = array(&memory, p2c * s.table_width, sizeof *s.by_key_steps);
    s.bytes = memory - start;
    return s;
}

static size_t disentangled_scratch(const struct attention *a) { return arrays_of((const struct disentangled *)a, 0).bytes; }

/* A head's table, [head / 2, columns, 2], whose columns are those of the buckets from first on; steps: only if IN_STEPS. */
struct table {
    const number *data; /* NULL: there is none */
    size_t columns, first;
    const float *steps; /* [columns] */
};
struct tables {
    struct table by_query, by_key;
    const float *bias; /* of each bucket, or NULL */
};

/* c [n, columns from first to last, rounded up] = a [n, head] times a head's table; the last blocks are of equal width. */
static void bucket_products(size_t head, size_t n, const number *a, struct table t, size_t first, size_t last, float *c,
                            size_t width) {
    t.data += 2 * (first - t.first);
    for (size_t left = (last - first) / LANES + 1, some; left; left -= some, t.data += 2 * LANES * some, c += LANES * some) {
        const size_t blocks = (left + REGISTERS - 1) / REGISTERS;
        some = (left + blocks - 1) / blocks;
        GEMM[n][some](a, head, t.data, t.columns, head / 2, c, width);
    }
}

/* What rows have with the buckets from first on; steps: what 1 stands for. */
struct products {
    const float *data, *steps;
    size_t width, first; /* width: numbers from one row to the next; 0 if all have the same */
};

static struct products products_with(struct table t, size_t first, const float *data, size_t width) {
    return (struct products){data, IN_STEPS ? t.steps + (first - t.first) : NULL, width, first};
}

/* What is added to the scores of a block of queries: c2p or a number of each bucket, and p2c. */
struct positions {
    struct products of;
    const int32_t *buckets; /* of the first query and key; they fall */
    const float *p2c;
    size_t p2c_width;
};

/* The numbers of LANES neighbours, whose buckets are given and among which the smallest is one, in a row of products. */
INLINE vector by_bucket(struct products of, size_t row, const int32_t *buckets, int32_t smallest) {
    const size_t at = (size_t)smallest - of.first;
    const vector x = load(of.data + row * of.width + at);
    return pick(IN_STEPS ? multiply(x, load(of.steps + at)) : x, buckets, smallest);
}

/* c2p of a block's row for LANES keys from one on. */
INLINE vector c2p_of(const struct positions *p, size_t row, size_t key) {
    const int32_t *buckets = p->buckets + key - row;
    return by_bucket(p->of, row, buckets, buckets[LANES - 1]);
}

/* Positions of n queries from row on, whose chunk begins at one; c2p is computed. */
INLINE struct positions positions_of(const struct disentangled *d, const struct tables *t, const struct arrays *s, size_t begin,
                                     size_t row, size_t n, size_t keys) {
    const int32_t *rising = d->rising + d->middle + row;
    const size_t first = (size_t)(rising + 1)[-(ptrdiff_t)keys], head = d->attention.head, c2p = t->by_query.data != NULL;
    const size_t p2c_width = t->by_key.data ? s->p2c_width : 0;
    if (c2p) bucket_products(head, n, s->q, t->by_query, first, (size_t)rising[n - 1], s->c2p, s->c2p_width);
    return (struct positions){products_with(t->by_query, first, t->bias ? t->bias + first : s->c2p, c2p * s->c2p_width),
                              d->falling + d->middle - row, s->p2c + (row - begin) * p2c_width, p2c_width};
}

/* Terms that are not there. */
static void clear_absent(const struct disentangled *d, const struct arrays *s) {
    if (!d->position_key && !d->position_bias) memset(s->c2p, 0, s->c2p_width * sizeof *s->c2p);
    if (!d->position_query) memset(s->p2c, 0, s->p2c_width * sizeof *s->p2c);
}

/* p2c of 16 keys from one on, for the queries of a chunk: k_j Q[b(i - j)]. */
INLINE void score_by_keys(const struct disentangled *d, const struct arrays *s, struct table t, size_t key, size_t begin,
                          size_t queries) {
    static const size_t parts[] = {0, 6, 11, KEYS};
    const size_t head = d->attention.head, width = s->p2c_width;
    float *const p2c = s->p2c + key;
    const int32_t *buckets = d->rising + d->middle + begin - key; /* of the first query and key */
    const size_t first = (size_t)buckets[1 - KEYS], last = (size_t)buckets[padded(queries) - 1];
    const struct products of = products_with(t, first, s->tile, s->tile_width);
    for (size_t i = 0; i < 3; i++)
        bucket_products(head, parts[i + 1] - parts[i], s->rows + (key + parts[i]) * head, t, first, last,
                        s->tile + parts[i] * s->tile_width, s->tile_width);
    for (size_t some = 0; some < KEYS; some += LANES)
        for (size_t i = 0; i < queries; i += LANES) {
            words rows[LANES];
            for (size_t j = 0; j < LANES; j++) {
                const int32_t *of_key = buckets + i - (some + j);
                rows[j] = (words)by_bucket(of, some + j, of_key, of_key[0]);
            }
            transpose(rows);
            for (size_t j = 0; j < LANES; j++) store(p2c + (i + j) * width + some, (vector)rows[j]);
        }
}

/* A head's tables as they lie. */
INLINE struct tables tables_of(const struct disentangled *d, size_t of_head) {
    const size_t at = of_head * d->attention.head * d->columns;
    struct tables t = {.bias = d->position_bias ? d->position_bias + of_head * d->columns : NULL};
    if (d->position_key) t.by_query = (struct table){(const number *)d->position_key + at, d->columns, 0, NULL};
    if (d->position_query) t.by_key = (struct table){(const number *)d->position_query + at, d->columns, 0, NULL};
    return t;
}

/* Fetch the columns of a table that a text needs: they lie in rows far apart. */
INLINE void fetch_columns(const struct disentangled *d, const number *table, size_t first, size_t last) {
    for (size_t pair = 0; table && pair < d->attention.head / 2; pair++, table += 2 * d->columns)
        for (size_t i = 2 * first; i <= 2 * last; i += 32) __builtin_prefetch(table + i);
}

/* Take the first free slot of the scratch memory; a unit waits where more threads run than there are slots. */
static size_t take_slot(uint64_t *slots) {
    for (uint64_t free = __atomic_load_n(slots, __ATOMIC_RELAXED);;) {
        if (!free) _mm_pause(), free = __atomic_load_n(slots, __ATOMIC_RELAXED);
        else if (__atomic_compare_exchange_n(slots, &free, free & (free - 1), 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return (size_t)__builtin_ctzll(free);
    }
}
static void give_slot(uint64_t *slots, size_t slot) { __atomic_fetch_or(slots, (uint64_t)1 << slot, __ATOMIC_RELEASE); }
