/* Random operations on every level that this processor runs, against reference.c. Arrays are exactly as long as the operation
 * says, so that AddressSanitizer sees a step next to them. Prints for each kernel a hash of its results. Ends with status 1 at the
 * first difference. See test_fuzz.py.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../engine/kernels/levels.h"

extern const struct kernel REFERENCE[OPERATIONS];
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

static void run(const struct kernel *kernel, void *operation, size_t units) {
    while (units--) kernel->unit(operation, units);
}

static void dense_case(const struct kernel *kernel) {
    struct dense d = {.rows = below(8) ? below(40) : 512 + below(20), .inputs = 4 * (1 + below(30)), .outputs = 1 + below(100),
                      .activation = below(4), .rounding = ROUNDING};
    const int eight = d.activation != IDENTITY || below(2);
    const size_t n = d.rows * d.outputs, padded = PANEL * dense_panels(&d);
    uint8_t *x = random_bytes(d.rows * d.inputs);
    float *scale = floats(d.outputs, number);
    for (size_t i = 0; i < d.outputs; i++) scale[i] *= 1e-4f;
    d.x = x, d.weight = random_bytes(padded * d.inputs), d.scale = scale, d.bias = floats(d.outputs, wild);
    int32_t *offset = bytes(4 * padded), *expected_offset = bytes(4 * padded);
    const int32_t zero_point = (int32_t)below(256);
    REFERENCE[DENSE].offsets(&d, zero_point, expected_offset), kernel->offsets(&d, zero_point, offset);
    if (memcmp(offset, expected_offset, 4 * padded)) fail("offsets differ");
    d.offset = offset;
    struct dense r = d;
    if (eight) d.y8 = bytes(n), r.y8 = bytes(n);
    else d.y = bytes(4 * n), r.y = bytes(4 * n);
    run(kernel, &d, dense_units(&d)), run(&REFERENCE[DENSE], &r, dense_units(&r));
    if (eight) close8(d.y8, r.y8, n, 0.02);
    else closef(d.y, r.y, n);
    if (!d.rows) return;
    struct dense alone = d;
    const size_t row = below(d.rows);
    alone.rows = 1, alone.x = copy(x + row * d.inputs, d.inputs);
    if (eight) alone.y8 = bytes(d.outputs);
    else alone.y = bytes(4 * d.outputs);
    run(kernel, &alone, dense_units(&alone));
    if (eight) same(alone.y8, d.y8 + row * d.outputs, d.outputs);
    else same(alone.y, d.y + row * d.outputs, 4 * d.outputs);
}

static void attend(const struct kernel *kernel, struct attention *a) {
    const size_t size = attention_units(a) * kernel->scratch(a);
    a->y8 = bytes(a->batch * a->queries * a->heads * a->head);
    a->scratch = aligned_alloc(64, size + 64);
    run(kernel, a, attention_units(a));
    free(a->scratch);
}

static void attention_case(const struct kernel *kernel) {
    struct attention a = {.batch = 1 + below(3), .keys = 1 + below(70), .heads = 1 + below(3), .head = 16 * (1 + below(5)),
                          .rounding = {50, 128}};
    a.queries = below(3) ? a.keys : 1;
    const size_t hidden = a.heads * a.head, per_key = a.keys * hidden;
    float (*const draw)(void) = below(2) ? number : rarely_odd;
    float *q = floats(a.batch * a.queries * hidden, draw);
    float *k = floats(a.batch * per_key, draw), *v = floats(a.batch * per_key, draw);
    int64_t *lengths = bytes(8 * a.batch);
    for (size_t i = 0; i < a.batch * a.queries * hidden; i++) q[i] /= sqrtf((float)a.head);
    for (size_t text = 0; text < a.batch; text++) {
        lengths[text] = (int64_t)below(a.keys + 1);
        for (size_t i = (size_t)lengths[text] * hidden; i < per_key; i++) k[text * per_key + i] = v[text * per_key + i] = NAN;
    }
    a.q = q, a.k = k, a.v = v, a.lengths = lengths;
    struct attention r = a;
    attend(kernel, &a), attend(&REFERENCE[ATTENTION], &r);
    close8(a.y8, r.y8, a.batch * a.queries * hidden, 0.06);
    const size_t text = below(a.batch), length = (size_t)lengths[text], queries = a.queries == a.keys ? length : a.queries;
    if (!length) return;
    struct attention alone = a;
    alone.batch = 1, alone.keys = length, alone.queries = queries, alone.lengths = NULL;
    alone.q = copy(q + text * a.queries * hidden, 4 * queries * hidden);
    alone.k = copy(k + text * per_key, 4 * length * hidden), alone.v = copy(v + text * per_key, 4 * length * hidden);
    attend(kernel, &alone);
    same(alone.y8, a.y8 + text * a.queries * hidden, queries * hidden);
}

static void norm_case(const struct kernel *kernel) {
    struct norm n = {.epsilon = 1e-6f, .rows = below(12), .width = 1 + below(200), .rounding = ROUNDING};
    const size_t size = n.rows * n.width;
    const int in_place = (int)below(2);
    float *x = floats(size, number), *residual = floats(size, number);
    const float odd = wild();
    if (n.rows && !below(3) && !(fabsf(odd) > 1e18f && isfinite(odd))) x[below(size)] = odd; /* whose square is finite, too */
    n.factor = floats(n.width, number), n.gamma = floats(n.width, number), n.beta = floats(n.width, wild);
    if (below(2)) n.residual = residual;
    struct norm r = n;
    n.y = copy(x, 4 * size), n.x = in_place ? n.y : x, r.x = x, r.y = bytes(4 * size);
    if (below(2)) n.y8 = bytes(size), r.y8 = bytes(size);
    run(kernel, &n, norm_units(&n)), run(&REFERENCE[NORM], &r, norm_units(&r));
    if (n.width > 3) closef(n.y, r.y, size); /* of two or three numbers the variance may be next to nothing */
    if (n.y8 && n.width > 3) close8(n.y8, r.y8, size, 0.02);
    if (!n.rows) return;
    const size_t row = below(n.rows), at = row * n.width;
    struct norm alone = n;
    alone.rows = 1, alone.x = copy(x + at, 4 * n.width), alone.y = bytes(4 * n.width);
    if (n.residual) alone.residual = copy(residual + at, 4 * n.width);
    if (n.y8) alone.y8 = bytes(n.width);
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

int main(void) {
    static void (*const each[OPERATIONS])(const struct kernel *) = {dense_case, attention_case, norm_case, gelu_case};
    static const char *const names[] = {"dense", "attention", "norm", "gelu"};
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
