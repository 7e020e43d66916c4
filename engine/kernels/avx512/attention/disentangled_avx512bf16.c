/* Disentangled attention with AVX-512 BF16 (He et al. 2021). Takes float32 and bfloat16; nothing is gathered or expanded.
 *
 * The products of a block's queries with the buckets that it needs are a product of matrices, columns of the table being side by
 * side. Of 16 keys next to each other the buckets are at most 16 next to each other: a load and a permutation bring the products to
 * their keys. The products of keys likewise, 16 keys with the buckets of a chunk of queries, and then rows become columns.
 */
#include "../../levels.h"
#include "attention_bf16.h"

TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

enum { MOST_QUERIES = 192, FEWEST_QUERIES = 48, MOST_SCORES = 96 << 10 }; /* of a chunk of queries, whose p2c is kept */

/* The arrays in the scratch memory of a head: those of plain attention, and what positions need. */
struct scratch {
    bf16 *k, *v;   /* packed */
    float *scores; /* [QUERIES, keys], and then [QUERIES, head] */
    bf16 *p;       /* [QUERIES, keys] */
    bf16 *q;       /* [QUERIES, head] */
    float *c2p;    /* [QUERIES, c2p_width]: a block of queries by buckets */
    bf16 *rows;    /* [keys, head]: the keys again, not packed */
    float *tile;   /* [KEYS, tile_width]: 16 keys by buckets */
    float *p2c;    /* [chunk, p2c_width]: the scores that keys give to a chunk of queries */
    size_t c2p_width, tile_width, p2c_width, chunk, bytes;
};

/* The queries of a chunk, of equal size and full registers, if it has at most so many. */
static size_t chunk_of(size_t queries, size_t most) {
    const size_t chunks = (queries + most - 1) / most;
    return chunks ? padded((queries + chunks - 1) / chunks) : KEYS;
}

static size_t most_queries(size_t keys) {
    const size_t most = MOST_SCORES / padded(keys) / KEYS * KEYS;
    return most > MOST_QUERIES ? MOST_QUERIES : larger(most, FEWEST_QUERIES);
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

static struct scratch scratch_arrays(const struct disentangled *d, uintptr_t memory) {
    const struct attention *a = &d->attention;
    const uintptr_t start = memory;
    const size_t keys = padded(a->keys), head = a->head, c2p = d->position_key != NULL, p2c = d->position_query != NULL;
    struct scratch s = {.chunk = chunk_of(a->queries, most_queries(keys)), .p2c_width = keys + KEYS};
    s.c2p_width = width_of(d, keys + QUERIES - 1), s.tile_width = width_of(d, s.chunk + KEYS - 1);
    s.k = array(&memory, keys * head, sizeof *s.k), s.v = array(&memory, keys * head, sizeof *s.v);
    s.scores = array(&memory, QUERIES * larger(keys, head), sizeof *s.scores);
    s.p = array(&memory, QUERIES * keys, sizeof *s.p), s.q = array(&memory, QUERIES * head, sizeof *s.q);
    s.c2p = array(&memory, c2p * QUERIES * s.c2p_width, sizeof *s.c2p);
    s.rows = array(&memory, p2c * keys * head, sizeof *s.rows);
    s.tile = array(&memory, p2c * KEYS * s.tile_width, sizeof *s.tile);
    s.p2c = array(&memory, p2c * s.chunk * s.p2c_width, sizeof *s.p2c);
    s.bytes = memory - start;
    return s;
}

static size_t disentangled_scratch(const struct attention *a) {
    return scratch_arrays((const struct disentangled *)a, 0).bytes;
}

/* c [n, columns from first to last, rounded up] = a [n, head] times a head's table; the last blocks are of equal width. */
static void bucket_products(const struct disentangled *d, size_t n, const bf16 *a, const bf16 *table, size_t first, size_t last,
                            float *c, size_t width) {
    const size_t head = d->attention.head;
    table += 2 * first;
    for (size_t left = (last - first) / 16 + 1, some; left; left -= some, table += 32 * some, c += 16 * some) {
        const size_t blocks = (left + 3) / 4;
        some = (left + blocks - 1) / blocks;
        GEMM[n][some](a, head, table, d->columns, head / 2, c, width);
    }
}

/* The numbers of 16 neighbours, whose buckets are given and among which the smallest is one; products begin at bucket first. */
INLINE __m512 by_bucket(const float *products, size_t first, const int32_t *buckets, int32_t smallest) {
    const __m512i places = _mm512_sub_epi32(_mm512_loadu_si512(buckets), _mm512_set1_epi32(smallest));
    return _mm512_permutexvar_ps(places, _mm512_loadu_ps(products + ((size_t)smallest - first)));
}

/* p2c of 16 keys from one on, for the queries of a chunk: k_j Q[b(i - j)]. */
INLINE void score_by_keys(const struct disentangled *d, const struct scratch *s, const bf16 *table, size_t key, size_t begin,
                          size_t queries) {
    static const size_t parts[] = {0, 6, 11, KEYS};
    const int32_t *buckets = d->rising + d->middle + begin - key; /* of the first query and key */
    const size_t first = (size_t)buckets[1 - KEYS], last = (size_t)buckets[padded(queries) - 1];
    for (size_t i = 0; i < 3; i++)
        bucket_products(d, parts[i + 1] - parts[i], s->rows + (key + parts[i]) * d->attention.head, table, first, last,
                        s->tile + parts[i] * s->tile_width, s->tile_width);
    for (size_t i = 0; i < queries; i += 16) {
        __m512i rows[16];
        for (size_t j = 0; j < 16; j++) {
            const int32_t *of_key = buckets + i - j;
            rows[j] = (__m512i)by_bucket(s->tile + j * s->tile_width, first, of_key, of_key[0]);
        }
        transpose(rows);
        for (size_t j = 0; j < 16; j++) _mm512_storeu_si512(s->p2c + (i + j) * s->p2c_width + key, rows[j]);
    }
}

/* What a block's queries add by bucket, from the first one on: a row each, or for all of them the same, and then width is 0. */
struct by_query {
    const float *products;
    size_t width, first;
};

/* Add c2p and p2c, as far as there are, to the scores of n queries; buckets are those of the first query and
 * key. The largest by lane are in top. */
INLINE void add_positions(int n, int c2p, int p2c, const struct scratch *s, struct by_query of, size_t block, size_t in_chunk,
                          const int32_t *buckets, size_t length, size_t keys, __m512 *top) {
    float *scores = s->scores + block * keys;
    const float *by_query = of.products + block * of.width, *by_key = s->p2c + (in_chunk + block) * s->p2c_width;
    UNROLL(6)
    for (int i = 0; i < n; i++) top[i] = _mm512_set1_ps(-INFINITY);
    for (size_t j = 0; j < keys; j += 16)
        UNROLL(6)
        for (int i = 0; i < n; i++) {
            __m512 score = _mm512_loadu_ps(scores + i * keys + j);
            const int32_t *of_query = buckets + j - (block + i);
            if (c2p) score = _mm512_add_ps(score, by_bucket(by_query + i * of.width, of.first, of_query, of_query[15]));
            if (p2c) score = _mm512_add_ps(score, _mm512_loadu_ps(by_key + i * s->p2c_width + j));
            _mm512_storeu_ps(scores + i * keys + j, score);
            top[i] = _mm512_mask_max_ps(top[i], lanes(length - j), top[i], score);
        }
}

/* The weights of n queries. */
INLINE void weigh(int n, int c2p, int p2c, const struct scratch *s, struct by_query of, size_t block, size_t in_chunk,
                  const int32_t *buckets, size_t length, size_t keys, float *inverse) {
    __m512 top[QUERIES];
    add_positions(n, c2p, p2c, s, of, block, in_chunk, buckets, length, keys, top);
    weights_of(n, s->scores + block * keys, top, length, keys, s->p + block * keys, inverse + block);
}

/* A head with its tables and scratch memory. */
struct work {
    const struct disentangled *d;
    struct head head;
    struct scratch scratch;
    const bf16 *position_key, *position_query; /* of the head */
    const float *position_bias;
};

/* The queries from row up to end, of which there are at most QUERIES; begin: the first of their chunk. */
INLINE void attend_block(const struct work *w, size_t begin, size_t row, size_t end, int c2p, int p2c) {
    const struct attention *a = &w->d->attention;
    const struct scratch *s = &w->scratch;
    const size_t n = end - row, length = w->head.length, keys = padded(length), in_chunk = row - begin;
    const int32_t *rising = w->d->rising + w->d->middle + row, *falling = w->d->falling + w->d->middle - row;
    const size_t first = (size_t)(rising + 1)[-(ptrdiff_t)keys];
    copy_rows(w->head.q, row, n, a->head, s->q);
    fetch_rows(w->head.q, a->head, end, QUERIES, w->head.queries);
    scores_of(n, s->q, s->k, a->head, keys, 0, keys, s->scores);
    const struct by_query of = w->position_bias ? (struct by_query){w->position_bias, 0, 0}
                                                : (struct by_query){s->c2p, s->c2p_width, first};
    if (w->position_key) bucket_products(w->d, n, s->q, w->position_key, first, (size_t)rising[n - 1], s->c2p, s->c2p_width);
    float inverse[QUERIES];
    size_t i = 0;
    for (; i + 3 <= n; i += 3) weigh(3, c2p, p2c, s, of, i, in_chunk, falling, length, keys, inverse);
    for (; i < n; i++) weigh(1, c2p, p2c, s, of, i, in_chunk, falling, length, keys, inverse);
    gemm(n, s->p, keys, s->v, a->head, keys / 2, s->scores); /* the scores have been read */
    store_context(a, s->scores, inverse, n, w->head.y + row * a->heads * a->head);
}

INLINE void attend_chunk(const struct work *w, size_t begin, size_t end) {
    const size_t queries = end - begin, blocks = (queries + QUERIES - 1) / QUERIES, keys = padded(w->head.length);
    if (w->position_query)
        for (size_t key = 0; key < keys; key += KEYS)
            score_by_keys(w->d, &w->scratch, w->position_query, key, begin, queries);
    for (size_t b = 0; b < blocks; b++) {
        const size_t row = begin + b * queries / blocks, next = begin + (b + 1) * queries / blocks;
        if (!w->position_query) attend_block(w, begin, row, next, 1, 0);
        else if (!w->position_key) attend_block(w, begin, row, next, 0, 1);
        else attend_block(w, begin, row, next, 1, 1);
    }
}

/* Fetch the columns of a table that a text needs: they lie in rows far apart. */
INLINE void fetch_columns(const struct disentangled *d, const bf16 *table, size_t first, size_t last) {
    for (size_t pair = 0; table && pair < d->attention.head / 2; pair++, table += 2 * d->columns)
        for (size_t i = 2 * first; i <= 2 * last; i += 32) __builtin_prefetch(table + i);
}

INLINE void pack(const struct work *w) {
    const struct scratch *s = &w->scratch;
    const struct head *h = &w->head;
    const size_t length = h->length, keys = padded(length), head = h->a->head;
    const struct rows rows = {(const char *)s->rows, head, BFLOAT16};
    if (w->position_query) {
        copy_rows(h->k, 0, length, head, s->rows);
        memset(s->rows + length * head, 0, (keys - length) * head * sizeof *s->rows);
        pack_keys(rows, length, keys, head, s->k);
    } else pack_keys(h->k, length, keys, head, s->k);
    pack_values(h->v, length, keys, head, s->v);
}

INLINE void attend(const struct disentangled *d, const struct scratch *s, size_t text, size_t of_head, enum format format) {
    const struct attention *a = &d->attention;
    const size_t table = of_head * a->head * d->columns;
    struct work w = {.d = d, .head = head_of(a, text * a->heads + of_head, format), .scratch = *s};
    const size_t queries = w.head.queries, chunk = chunk_of(queries, s->chunk);
    if (d->position_key) w.position_key = d->position_key + table;
    if (d->position_query) w.position_query = d->position_query + table;
    if (d->position_bias) w.position_bias = d->position_bias + of_head * d->columns;
    if (queries) {
        const int32_t *here = d->rising + d->middle;
        const size_t first = (size_t)(here + 1)[-(ptrdiff_t)w.head.length], last = (size_t)here[queries - 1];
        fetch_columns(d, w.position_query, first, last), fetch_columns(d, w.position_key, first, last);
        pack(&w);
    }
    for (size_t begin = 0; begin < queries; begin += chunk)
        attend_chunk(&w, begin, queries - begin < chunk ? queries : begin + chunk);
    store_padding(a, a->queries - queries, w.head.y + queries * a->heads * a->head);
}

/* Take the first free slot of the scratch memory; a unit waits where more threads run than there are slots. */
static size_t take_slot(uint64_t *slots) {
    for (uint64_t free = __atomic_load_n(slots, __ATOMIC_RELAXED);;) {
        if (!free) _mm_pause(), free = __atomic_load_n(slots, __ATOMIC_RELAXED);
        else if (__atomic_compare_exchange_n(slots, &free, free & (free - 1), 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return (size_t)__builtin_ctzll(free);
    }
}

static void disentangled_unit(void *operation, size_t unit) {
    struct disentangled *d = operation;
    const struct attention *a = &d->attention;
    const size_t slot = take_slot(&d->free), text = unit % a->batch, head = unit / a->batch;
    const struct scratch scratch = scratch_arrays(d, (uintptr_t)a->scratch + slot * disentangled_scratch(a));
    if (a->format == FLOAT32) attend(d, &scratch, text, head, FLOAT32);
    else attend(d, &scratch, text, head, BFLOAT16);
    __atomic_fetch_or(&d->free, (uint64_t)1 << slot, __ATOMIC_RELEASE);
}

END_TARGET

const struct kernel disentangled_avx512bf16 = {.unit = disentangled_unit, .scratch = disentangled_scratch, .cost = 1 / 60.0};
