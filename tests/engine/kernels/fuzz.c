/* Random operations on every level that this processor runs, against reference.c. Arrays are exactly as long as the operation
 * says, so that AddressSanitizer sees a step next to them. Prints for each kernel a hash of its results. Ends with status 1 at the
 * first difference. See test_fuzz.py.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../engine/kernels/levels.h"

extern const struct kernel REFERENCE[OPERATIONS], BF16_ATTENTION, INT16_ATTENTION, INT16_DISENTANGLED;
extern const struct kernel attention_avx512bf16, disentangled_avx512bf16;
enum { CASES = 150 };
static const struct rounding ROUNDING = {1 / 0.031f, 99};

static uint64_t state;
static size_t below(size_t n) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (size_t)(state >> 20) % n;
}
static float number(void) { return (float)below(20001) / 5000 - 2; }
static float wild(void) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, -12.1f, -0.0f, 1e6f};
    return below(20) ? number() : odd[below(sizeof odd / sizeof *odd)];
}

static float rarely_odd(void) {
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    return below(2000) ? number() : odd[below(3)];
}

/* Arrays of one case; all are given back at its end. */
static void *taken[64];
static size_t count;
static void *bytes(size_t n) { return taken[count++] = malloc(n); }
static void *random_bytes(size_t n) {
    uint8_t *p = bytes(n);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)below(256);
    return p;
}
static float *floats(size_t n, float (*draw)(void)) {
    float *p = bytes(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = draw();
    return p;
}
static void *copy(const void *from, size_t n) { return n ? memcpy(bytes(n), from, n) : bytes(n); }

static uint64_t hash; /* of the results of a kernel, FNV-1a */
static void add(uint64_t bits) { hash = (hash ^ bits) * 1099511628211u; }

static void fail(const char *what) { printf("%s\n", what), exit(1); }
static void same(const void *a, const void *b, size_t n) {
    if (n && memcmp(a, b, n)) fail("a row depends on the others");
}
/* A tie may round either way, and bfloat16 has many: some numbers may be one step off. */
static void close8(const uint8_t *found, const uint8_t *expected, size_t n, double share) {
    size_t off = 0;
    for (size_t i = 0; i < n; i++) {
        add(found[i]), off += found[i] != expected[i];
        if (abs(found[i] - expected[i]) > 1) fail("eight bits differ by more than a step");
    }
    if ((double)off > 2 + share * (double)n) fail("eight bits differ too often");
}
static void closef(const float *found, const float *expected, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (isnan(found[i]) && isnan(expected[i])) continue;
        uint32_t bits;
        memcpy(&bits, found + i, 4), add(bits);
        const double off = fabs(found[i] - expected[i]);
        if (found[i] != expected[i] && !(off <= 3e-5 * (1 + fabs(expected[i])))) fail("float32 differs");
    }
}

static float from_bits(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float number;
    return memcpy(&number, &bits, 4), number;
}

static void run(const struct kernel *kernel, void *operation, size_t units) {
    while (units--) kernel->unit(operation, units);
}

static uint16_t bits16(float x) {
    uint32_t bits;
    return memcpy(&bits, &x, 4), (uint16_t)(bits >> 16);
}
static bf16 *halves(size_t n, float (*draw)(void)) {
    bf16 *p = bytes(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = bits16(draw());
    return p;
}
/* A sum in another order may round the other way: by a unit in the last place. least: what is allowed of any number. */
static void close16(const bf16 *found, const bf16 *expected, size_t n, double share, float least) {
    size_t off = 0;
    for (size_t i = 0; i < n; i++) {
        const float f = from_bits(found[i]), e = from_bits(expected[i]);
        if (isnan(f) && isnan(e)) continue;
        add(found[i]), off += f != e;
        if (f != e && !(fabsf(f - e) <= 0.0081f * fabsf(e) + least)) fail("bfloat16 differs");
    }
    if ((double)off > 2 + share * (double)n) fail("bfloat16 differs too often");
}

/* The result of a product, in the format that is wanted. */
static void *wanted(struct dense *d, size_t numbers, enum operation kind, int narrow) {
    void *y = bytes(4 * numbers);
    d->y = NULL, d->y16 = NULL, d->y8 = NULL;
    if (!narrow) d->y = y;
    else if (kind == DENSE_BF16) d->y16 = y;
    else d->y8 = y;
    return y;
}

/* Whole panels whose halves go together: a gated unit, or RoPE. Return the bias's numbers: a Gelu that is nearly 0 may have either
 * sign, which infinity would show. */
static float (*together(struct dense *d, int narrow))(void) {
    d->ending = narrow && below(2) ? GATED : TURNED; /* what is gated is narrow in the graphs */
    d->head = PANEL * (1 + below(2)), d->outputs = d->head * (1 + below(3)), d->tokens = 1 + below(12);
    if (d->ending == TURNED) d->activation = IDENTITY;
    d->cos = floats(d->tokens * d->head / 2, number), d->sin = floats(d->tokens * d->head / 2, number);
    return d->ending == TURNED || d->activation == RELU ? rarely_odd : number;
}

static void dense_case(const struct kernel *kernel, enum operation kind) {
    static const size_t sizes[] = {1, 2, 4}, takes[] = {4, 2, 1}; /* bytes of a number of x; inputs taken at once */
    struct dense d = {.rows = below(8) ? below(40) : 512 + below(20), .inputs = takes[kind] * (1 + below(120 / takes[kind])),
                      .outputs = 1 + below(100), .rounding = ROUNDING};
    const int narrow = kind == DENSE_FP32 ? 0 : (int)below(2);
    if (narrow) d.activation = below(4);
    float (*const draw)(void) = kind != DENSE_FP32 && below(2) ? together(&d, narrow) : wild;
    const size_t width = d.ending == GATED ? d.outputs / 2 : d.outputs, n = d.rows * width;
    const size_t padded = PANEL * dense_panels(&d), row_bytes = d.inputs * sizes[kind];
    float *scale = floats(d.outputs, number);
    for (size_t i = 0; i < d.outputs; i++) scale[i] *= 1e-4f;
    void *x = kind == DENSE_INT8   ? random_bytes(d.rows * d.inputs)
              : kind == DENSE_BF16 ? (void *)halves(d.rows * d.inputs, number)
                                   : (void *)floats(d.rows * d.inputs, number);
    d.x = x, d.scale = scale, d.bias = below(4) ? floats(d.outputs, draw) : NULL;
    d.weight = kind == DENSE_INT8   ? random_bytes(padded * d.inputs)
               : kind == DENSE_BF16 ? (void *)halves(padded * d.inputs, number)
                                    : (void *)floats(d.outputs * d.inputs, number);
    if (kind == DENSE_INT8) {
        int32_t *offset = bytes(4 * padded), *expected_offset = bytes(4 * padded);
        const int32_t zero_point = (int32_t)below(256);
        REFERENCE[kind].offsets(&d, zero_point, expected_offset), kernel->offsets(&d, zero_point, offset);
        if (memcmp(offset, expected_offset, 4 * padded)) fail("offsets differ");
        d.offset = offset;
    }
    struct dense r = d;
    char *y = wanted(&d, n, kind, narrow), *expected = wanted(&r, n, kind, narrow);
    run(kernel, &d, kind == DENSE_FP32 ? strip_units(&d) : dense_units(&d)), run(&REFERENCE[kind], &r, dense_units(&r));
    if (d.y8) close8(d.y8, r.y8, n, 0.02);
    else if (d.y16) close16(d.y16, r.y16, n, d.activation == GELU || d.activation == GELU_TANH ? 1 : 0.02,
                          d.ending == ACTIVATED ? 1e-4f : 2e-3f); /* a number near 0 times a large one, and differences */
    else closef((float *)y, (float *)expected, n);
    if (!d.rows) return;
    struct dense alone = d;
    const size_t row = below(d.rows), size = width * (d.y8 ? 1 : d.y16 ? 2 : 4);
    alone.rows = 1, alone.x = copy((char *)x + row * row_bytes, row_bytes);
    if (d.ending == TURNED) /* the first of its text, turned as before */
        alone.cos += row % d.tokens * d.head / 2, alone.sin += row % d.tokens * d.head / 2, alone.tokens = 1;
    char *single = wanted(&alone, width, kind, narrow);
    run(kernel, &alone, kind == DENSE_FP32 ? strip_units(&alone) : dense_units(&alone));
    same(single, y + row * size, size);
}
static void int8_case(const struct kernel *kernel) { dense_case(kernel, DENSE_INT8); }
static void bf16_case(const struct kernel *kernel) { dense_case(kernel, DENSE_BF16); }
static void fp32_case(const struct kernel *kernel) { dense_case(kernel, DENSE_FP32); }

static void attend(const struct kernel *kernel, struct attention *a, int narrow) {
    const size_t size = attention_units(a) * kernel->scratch(a);
    a->y8 = bytes(2 * a->batch * a->queries * a->heads * a->head);
    if (!narrow) a->y16 = (bf16 *)a->y8, a->y8 = NULL;
    a->scratch = aligned_alloc(64, size + 64);
    run(kernel, a, attention_units(a));
    free(a->scratch);
}

/* Positions for texts of any length: buckets that rise at random, and tables whose last columns nothing may use. */
static int64_t *positions(struct disentangled *d, size_t *reach) {
    const struct attention *a = &d->attention;
    *reach = 1 + below(100);
    int64_t *buckets = bytes(8 * (2 * *reach - 1));
    buckets[0] = (int64_t)below(3);
    for (size_t i = 1; i < 2 * *reach - 1; i++) buckets[i] = buckets[i - 1] + (below(4) != 0);
    const size_t used = (size_t)buckets[2 * *reach - 2] + 1, terms = below(4);
    d->columns = used + SPARE;
    const size_t numbers = a->heads * a->head * d->columns;
    bf16 *key = halves(numbers, number), *query = halves(numbers, number);
    for (size_t i = 0; i < numbers; i++) {
        const int spare = i / 2 % d->columns >= used;
        key[i] = bits16(spare ? NAN : from_bits(key[i]) / 8), query[i] = bits16(spare ? NAN : from_bits(query[i]) / 8);
    }
    float *bias = floats(a->heads * d->columns, number);
    for (size_t i = 0; i < a->heads * d->columns; i++) bias[i] = i % d->columns >= used ? NAN : bias[i];
    if (!terms) d->position_bias = bias;
    if (terms & 1) d->position_key = key;
    if (terms & 2) d->position_query = query;
    return buckets;
}
static void set_buckets(struct disentangled *d, const int64_t *buckets, size_t reach) {
    lay_out_buckets(d, buckets, reach, bytes(8 * bucket_numbers(d->attention.keys)));
}

static void attention_case_of(const struct kernel *kernel, int disentangled) {
    const int in_bf16 = kernel == &disentangled_avx512bf16 || kernel == &attention_avx512bf16; /* they alone take and give it */
    const struct kernel *const references[] = {in_bf16 ? &BF16_ATTENTION : &INT16_ATTENTION,
                                               in_bf16 ? &REFERENCE[DISENTANGLED] : &INT16_DISENTANGLED};
    struct attention a = {.batch = 1 + below(3), .keys = 1 + below(70), .heads = 1 + below(3), .head = 16 * (1 + below(5)),
                          .rounding = {50, 128}, .format = in_bf16 && below(2) ? BFLOAT16 : FLOAT32};
    a.queries = below(3) ? a.keys : 1;
    if (disentangled && !below(6)) a.keys = 200 + below(200), a.queries = below(2) ? a.keys : 1;
    if (!disentangled && !below(3)) a.window = 1 + below(20), a.keys = a.queries = below(6) ? 1 + below(150) : 500 + below(50);
    const size_t hidden = a.heads * a.head, per_key = a.keys * hidden, n = a.batch * a.queries * hidden;
    const int narrow = !in_bf16 || below(2);
    float (*const draw)(void) = a.window || below(2) ? number : rarely_odd; /* what is not finite spoils a window's block */
    float *q = floats(n, draw), *k = floats(a.batch * per_key, draw), *v = floats(a.batch * per_key, draw);
    int64_t *lengths = bytes(8 * a.batch);
    for (size_t i = 0; i < n; i++) q[i] /= sqrtf((float)a.head);
    for (size_t text = 0; text < a.batch; text++) {
        lengths[text] = (int64_t)below(a.keys + 1);
        for (size_t i = (size_t)lengths[text] * hidden; i < per_key; i++) k[text * per_key + i] = v[text * per_key + i] = NAN;
    }
    const size_t bytes_each = a.format == FLOAT32 ? 4 : 2;
    if (a.format == BFLOAT16) { /* in place: the upper halves */
        for (size_t i = 0; i < n; i++) ((bf16 *)q)[i] = bits16(q[i]);
        for (size_t i = 0; i < a.batch * per_key; i++) ((bf16 *)k)[i] = bits16(k[i]), ((bf16 *)v)[i] = bits16(v[i]);
    }
    a.q = q, a.k = k, a.v = v, a.lengths = lengths;
    struct disentangled p = {.attention = a}, p_reference, p_alone; /* each begins with its attention */
    size_t reach = 0;
    const int64_t *buckets = disentangled ? positions(&p, &reach) : NULL;
    if (disentangled) set_buckets(&p, buckets, reach);
    p_reference = p;
    struct attention *found = &p.attention, *r = &p_reference.attention, *alone = &p_alone.attention;
    attend(kernel, found, narrow);
    attend(references[disentangled], r, narrow);
    if (narrow) close8(found->y8, r->y8, n, 0.06);
    else close16(found->y16, r->y16, n, 0.2, 0.01f); /* probabilities round the other way, too, and values cancel */
    const size_t text = below(a.batch), length = (size_t)lengths[text], queries = a.queries == a.keys ? length : a.queries;
    if (!length) return;
    p_alone = p, *alone = a;
    alone->batch = 1, alone->keys = length, alone->queries = queries, alone->lengths = NULL;
    if (disentangled) set_buckets(&p_alone, buckets, reach);
    alone->q = copy((char *)q + text * a.queries * hidden * bytes_each, bytes_each * queries * hidden);
    alone->k = copy((char *)k + text * per_key * bytes_each, bytes_each * length * hidden);
    alone->v = copy((char *)v + text * per_key * bytes_each, bytes_each * length * hidden);
    attend(kernel, alone, narrow);
    if (narrow) same(alone->y8, found->y8 + text * a.queries * hidden, queries * hidden);
    else same(alone->y16, found->y16 + text * a.queries * hidden, 2 * queries * hidden);
}
static void attention_case(const struct kernel *kernel) { attention_case_of(kernel, 0); }
static void disentangled_case(const struct kernel *kernel) { attention_case_of(kernel, 1); }

static void norm_case(const struct kernel *kernel) {
    struct norm n = {.epsilon = 1e-6f, .rows = below(12), .width = 1 + below(200), .rounding = ROUNDING};
    const size_t size = n.rows * n.width;
    const int in_place = (int)below(2);
    float *x = floats(size, number), *residual = floats(size, number);
    const float odd = wild();
    if (n.rows && !below(3) && !(fabsf(odd) > 1e18f && isfinite(odd))) x[below(size)] = odd; /* whose square is finite, too */
    n.factor = floats(n.width, number), n.gamma = floats(n.width, number), n.beta = floats(n.width, wild);
    if (below(2)) n.residual = residual;
    if (below(2)) n.factor = NULL;
    n.keeps_sum = (int)below(2);
    struct norm r = n;
    n.y = copy(x, 4 * size), n.x = in_place ? n.y : x, r.x = x, r.y = bytes(4 * size);
    if (below(2)) n.y8 = bytes(size), r.y8 = bytes(size);
    if (below(2)) n.y16 = bytes(2 * size), r.y16 = bytes(2 * size);
    run(kernel, &n, norm_units(&n)), run(&REFERENCE[NORM], &r, norm_units(&r));
    if (n.width > 3) closef(n.y, r.y, size); /* of two or three numbers the variance may be next to nothing */
    if (n.y8 && n.width > 3) close8(n.y8, r.y8, size, 0.02);
    if (n.y16 && n.width > 3) close16(n.y16, r.y16, size, 0.02, 1e-4f);
    if (!n.rows) return;
    const size_t row = below(n.rows), at = row * n.width;
    struct norm alone = n;
    alone.rows = 1, alone.x = copy(x + at, 4 * n.width), alone.y = bytes(4 * n.width);
    if (n.residual) alone.residual = copy(residual + at, 4 * n.width);
    if (n.y8) alone.y8 = bytes(n.width);
    if (n.y16) alone.y16 = bytes(2 * n.width);
    run(kernel, &alone, 1);
    same(alone.y, n.y + at, 4 * n.width);
}

static void gelu_case(const struct kernel *kernel) {
    struct gelu g = {.count = below(4) ? below(100) : 4000 + below(300), .kind = below(2) ? GELU : GELU_TANH};
    float *x = floats(g.count, wild), alone;
    struct gelu r = g;
    g.x = r.x = x, g.y = bytes(4 * g.count), r.y = bytes(4 * g.count);
    run(kernel, &g, gelu_units(&g)), run(&REFERENCE[GELU_ALONE], &r, gelu_units(&r));
    closef(g.y, r.y, g.count);
    if (!g.count) return;
    const size_t i = below(g.count);
    struct gelu one = {.x = copy(x + i, 4), .y = &alone, .count = 1, .kind = g.kind};
    run(kernel, &one, 1);
    same(&alone, g.y + i, 4);
}

/* The texts' number, and the last of them alone, of fewer tokens. */
static void embed_case(const struct kernel *kernel, enum operation kind) {
    const size_t texts = below(5), size = kind == EMBED_INT8 ? 1 : 2;
    struct embed e = {.tokens = 1 + below(20), .words = 1 + below(30), .kinds = 1 + below(3), .counted = (int)below(2)};
    struct norm *n = &e.norm;
    *n = (struct norm){.epsilon = 1e-6f, .rows = texts * e.tokens, .width = 4 + below(100), .rounding = ROUNDING};
    e.padding_id = (int64_t)below(e.words);
    const size_t positions = e.tokens + (e.counted ? (size_t)e.padding_id + 1 : 0), numbers = n->rows * n->width;
    int64_t *ids = bytes(8 * n->rows), *segments = bytes(8 * n->rows);
    for (size_t i = 0; i < n->rows; i++) {
        ids[i] = (int64_t)below(2 * e.words) - (int64_t)e.words, segments[i] = (int64_t)below(2 * e.kinds) - (int64_t)e.kinds;
        if (!below(4)) ids[i] = e.padding_id;
    }
    uint16_t *word = random_bytes(size * e.words * n->width);
    if (size == 2) for (size_t i = 0; i < e.words * n->width; i++) word[i] &= 0xBFFF; /* below 2, and no infinity */
    e.ids = ids, e.word = word, e.position = floats(positions * n->width, number);
    e.token_type = floats(e.kinds * n->width, number);
    float *scale = floats(e.words, number);
    for (size_t i = 0; i < e.words; i++) scale[i] *= 0.01f;
    e.scale = kind == EMBED_INT8 ? scale : NULL, e.segments = below(2) ? segments : NULL;
    n->gamma = floats(n->width, number), n->beta = floats(n->width, wild);
    if (!below(4)) e.position = NULL;
    struct embed r = e;
    n->y = bytes(4 * numbers), r.norm.y = bytes(4 * numbers);
    if (size == 1) n->y8 = bytes(numbers), r.norm.y8 = bytes(numbers);
    else n->y16 = bytes(2 * numbers), r.norm.y16 = bytes(2 * numbers);
    run(kernel, &e, norm_units(n)), run(&REFERENCE[kind], &r, norm_units(n));
    closef(n->y, r.norm.y, numbers);
    if (n->y8) close8(n->y8, r.norm.y8, numbers, 0.02);
    else close16(n->y16, r.norm.y16, numbers, 0.02, 1e-4f);
    if (!texts) return;
    struct embed alone = e;
    const size_t row = (texts - 1) * e.tokens, at = row * n->width;
    alone.tokens = alone.norm.rows = 1 + below(e.tokens);
    alone.ids = copy(ids + row, 8 * alone.tokens), alone.norm.y = bytes(4 * alone.tokens * n->width);
    if (e.segments) alone.segments = copy(segments + row, 8 * alone.tokens);
    if (n->y8) alone.norm.y8 = bytes(alone.tokens * n->width);
    else alone.norm.y16 = bytes(2 * alone.tokens * n->width);
    run(kernel, &alone, norm_units(&alone.norm));
    same(alone.norm.y, n->y + at, 4 * alone.tokens * n->width);
}
static void embed_int8_case(const struct kernel *kernel) { embed_case(kernel, EMBED_INT8); }
static void embed_bf16_case(const struct kernel *kernel) { embed_case(kernel, EMBED_BF16); }

int main(void) {
    static void (*const each[OPERATIONS])(const struct kernel *) = {int8_case, bf16_case, fp32_case,
                                                                   attention_case, norm_case, gelu_case,
                                                                   embed_int8_case, embed_bf16_case, disentangled_case};
    static const char *const names[] = {"dense_int8", "dense_bf16", "dense_fp32", "attention", "norm", "gelu", "embed_int8",
                                        "embed_bf16", "disentangled"};
    for (const struct level *level = LEVELS; level->name; level++)
        for (size_t operation = 0; operation < OPERATIONS && !(level->needs & ~cpu_features()); operation++) {
            if (!level->kernels[operation]) continue;
            printf("%s: %s ", level->name, names[operation]), fflush(stdout);
            hash = 14695981039346656037u;
            for (size_t i = 1; i <= CASES; i++) {
                state = i * 0x9E3779B97F4A7C15u;
                each[operation](level->kernels[operation]);
                while (count) free(taken[--count]);
            }
            printf("%016llx\n", (unsigned long long)hash);
        }
    return 0;
}
