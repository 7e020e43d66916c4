/* Speed of the kernels on one thread, next to the peak of the instruction that each is made of. ONNX Runtime is not needed.
 *
 *   cd tests/engine/kernels && K=../../../engine/kernels
 *   gcc -O3 benchmark.c $K/levels.c $K/cpu_features.c $(find $K/avx* -name '*.c') -o /tmp/benchmark && /tmp/benchmark [LEVEL]
 *
 * clang takes the same line. LEVEL: the level whose kernels are measured, else the processor's best.
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../engine/kernels/levels.h"

extern const struct kernel norm_avx512;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Print the rate of run(data), the best of some seconds, for so many operations (a multiply-add is two) or numbers a call. */
static double rate(const char *name, void (*run)(void *), void *data, double count, double peak) {
    double best = 1e9;
    for (const double end = seconds() + 0.5; seconds() < end;) {
        const double begin = seconds();
        run(data);
        if (seconds() - begin < best) best = seconds() - begin;
    }
    printf("%-44s %8.1f G/s", name, 1e-9 * count / best);
    printf(peak ? "  %3.0f %% of the peak\n" : "\n", 1e-7 * count / best / peak);
    return 1e-9 * count / best;
}

/* Independent sums, enough for any latency; the assembly keeps them in registers. */
enum { LOOPS = 20000 };
#define PEAK(name, sums, type, zero, step)                                                    \
    static void name(void *data) {                                                            \
        type sum[sums], a = zero;                                                             \
        (void)data;                                                                           \
        UNROLL(24) for (int i = 0; i < sums; i++) sum[i] = zero;                              \
        for (int loop = 0; loop < LOOPS; loop++)                                              \
            UNROLL(24) for (int i = 0; i < sums; i++) {                                       \
                sum[i] = step;                                                                \
                __asm__ volatile("" : "+v"(sum[i]));                                          \
            }                                                                                 \
    }
TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
PEAK(peak_vnni, 24, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sum[i], a, a))
PEAK(peak_bf16, 24, __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)a))
PEAK(peak_fma, 24, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, a, sum[i]))
PEAK(peak_vnni_256, 12, __m256i, _mm256_setzero_si256(), _mm256_dpbusd_epi32(sum[i], a, a))
END_TARGET
TARGET("avx2,fma,avxvnni")
PEAK(peak_avxvnni, 12, __m256i, _mm256_setzero_si256(), _mm256_dpbusd_avx_epi32(sum[i], a, a))
PEAK(peak_fma_256, 12, __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, a, sum[i]))
END_TARGET

/* The peaks of an instruction set, operations a second; 0: not there. */
struct peaks {
    double vnni, bf16, fma;
};
static struct peaks measure_peaks(unsigned features, int wide) {
    const double wide_sums = 2.0 * 24 * LOOPS, narrow_sums = 2.0 * 12 * LOOPS;
    struct peaks found = {0};
    if (wide) {
        if (features & AVX512_VNNI) found.vnni = rate("vpdpbusd, peak", peak_vnni, NULL, 64 * wide_sums, 0);
        if (features & AVX512_BF16) found.bf16 = rate("vdpbf16ps, peak", peak_bf16, NULL, 32 * wide_sums, 0);
        found.fma = rate("vfmadd, peak", peak_fma, NULL, 16 * wide_sums, 0);
        return found;
    }
    if (features & AVX_VNNI) found.vnni = rate("vpdpbusd, VEX, peak", peak_avxvnni, NULL, 32 * narrow_sums, 0);
    if (features & AVX512_VNNI) found.vnni = rate("vpdpbusd, EVEX, peak", peak_vnni_256, NULL, 32 * narrow_sums, 0);
    found.fma = rate("vfmadd, peak", peak_fma_256, NULL, 8 * narrow_sums, 0);
    return found;
}

static void *zeros(size_t bytes) { return memset(aligned_alloc(64, (bytes + 63) / 64 * 64), 0, bytes); }

static const struct level *level;
static void run_units(enum operation kind, void *operation, size_t units) {
    for (size_t i = 0; i < units; i++) level->kernels[kind]->unit(operation, i);
}
static enum operation dense; /* the format that is measured */
static void run_dense(void *d) { run_units(dense, d, dense == DENSE_FP32 ? strip_units(d) : dense_units(d)); }
static void run_attention(void *a) { run_units(ATTENTION, a, attention_units(a)); }
static void run_disentangled(void *d) { run_units(DISENTANGLED, d, attention_units(d)); }
static void run_norm(void *n) { run_units(NORM, n, norm_units(n)); }
static void run_gelu(void *g) { run_units(GELU_ALONE, g, gelu_units(g)); }

static void measure_dense(enum operation kind, double peak) {
    static const char *const names[] = {"int8", "bf16", "fp32"};
    const size_t rows[] = {1, 14, 16, 128, 1024}, widths[][2] = {{768, 768}, {768, 3072}, {3072, 768}};
    dense = kind;
    for (size_t w = 0; w < 3; w++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            const size_t in = widths[w][0], out = widths[w][1], n = rows[r] * out;
            struct dense d = {.x = zeros(4 * rows[r] * in), .weight = zeros(4 * in * out), .scale = zeros(4 * out),
                              .bias = zeros(4 * out), .offset = zeros(4 * out), .rows = rows[r], .inputs = in, .outputs = out,
                              .rounding = {1, 128}, .activation = out > in && kind != DENSE_FP32 ? GELU : IDENTITY};
            if (kind == DENSE_BF16) d.y16 = zeros(2 * n);
            else if (kind == DENSE_FP32 || out <= in) d.y = zeros(4 * n);
            else d.y8 = zeros(n);
            char name[64];
            snprintf(name, sizeof name, "%s%s %zux%zux%zu", names[kind], d.activation ? ", gelu" : "", rows[r], in, out);
            rate(name, run_dense, &d, 2.0 * (double)(rows[r] * in * out), peak);
        }
}

/* Products of ModernBERT-base: queries turned by their positions, and a gated unit, next to the same without. */
static void measure_ends(enum operation kind, double peak) {
    static const char *const formats[] = {"int8", "bf16"}, *const names[] = {"", ", rope", "", ", geglu"};
    const size_t rows[] = {16, 128, 1024}, in = 768;
    dense = kind;
    for (size_t r = 0; r < 3; r++)
        for (size_t end = 0; end < 4; end++) {
            const size_t out = end < 2 ? 768 : 2304, n = rows[r] * out;
            struct dense d = {.x = zeros(2 * rows[r] * in), .weight = zeros(2 * in * out), .scale = zeros(4 * out),
                              .bias = zeros(4 * out), .offset = zeros(4 * out), .rows = rows[r], .inputs = in, .outputs = out,
                              .rounding = {1, 128}, .tokens = rows[r], .head = 64};
            if (end == 1) d.ending = TURNED, d.cos = d.sin = zeros(4 * rows[r] * 32);
            if (end == 3) d.ending = GATED, d.activation = GELU;
            if (kind == DENSE_BF16) d.y16 = zeros(2 * n);
            else if (end < 2) d.y = zeros(4 * n);
            else d.y8 = zeros(n);
            char name[64];
            snprintf(name, sizeof name, "%s%s %zux%zux%zu", formats[kind], names[end], rows[r], in, out);
            rate(name, run_dense, &d, 2.0 * (double)(n * in), peak);
        }
}

/* Only what a query sees is counted: with a window at most that many keys on each side. */
static void measure_attention(double peak) {
    const size_t tokens[] = {16, 128, 512, 2048, 8192, 512, 2048, 8192}, windows[] = {0, 0, 0, 0, 0, 64, 64, 64};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        const size_t bytes = 4 * tokens[t] * 768, w = windows[t], seen = w ? tokens[t] * (2 * w + 1) - w * (w + 1) : tokens[t] * tokens[t];
        struct attention a = {.q = zeros(bytes), .k = zeros(bytes), .v = zeros(bytes), .batch = 1, .queries = tokens[t],
                              .keys = tokens[t], .heads = 12, .head = 64, .window = w, .y8 = zeros(bytes / 4), .rounding = {1, 128}};
        a.scratch = zeros(attention_units(&a) * level->kernels[ATTENTION]->scratch(&a));
        char name[64];
        snprintf(name, sizeof name, "attention 1x%zu%s, 12 heads of 64", tokens[t], w ? ", window 64" : "");
        rate(name, run_attention, &a, 4.0 * (double)(seen * 768), peak);
    }
}

/* With 512 buckets, of which 256 are of one distance each, and without positions. The operations are those without in both. */
enum { REACH = 512, BUCKETS = 512 };
static void measure_disentangled(void) {
    const size_t shapes[][2] = {{1, 16}, {1, 128}, {8, 128}, {16, 32}, {1, 512}};
    int64_t buckets[2 * REACH - 1];
    for (int64_t i = 0, b = 0; i < 2 * REACH - 1; i++) /* every third of the far distances begins a bucket */
        buckets[i] = b += i && (llabs(i - REACH) < BUCKETS / 4 || (i % 3 == 0 && b < BUCKETS - 1));
    for (size_t t = 0; t < sizeof shapes / sizeof *shapes; t++) {
        const size_t texts = shapes[t][0], tokens = shapes[t][1], bytes = 4 * texts * tokens * 768, columns = BUCKETS + SPARE;
        struct disentangled d = {.attention = {.q = zeros(bytes), .k = zeros(bytes), .v = zeros(bytes), .batch = texts,
                                               .queries = tokens, .keys = tokens, .heads = 12, .head = 64, .y8 = zeros(bytes / 4),
                                               .rounding = {1, 128}},
                                 .position_key = zeros(2 * 768 * columns), .position_query = zeros(2 * 768 * columns), .columns = columns};
        struct attention *a = &d.attention, plain = *a;
        lay_out_buckets(&d, buckets, REACH, zeros(8 * bucket_numbers(tokens)));
        a->scratch = zeros(slots_of(a) * level->kernels[DISENTANGLED]->scratch(a));
        plain.scratch = zeros(attention_units(a) * level->kernels[ATTENTION]->scratch(a));
        char name[64];
        const double operations = 4.0 * (double)(texts * tokens * tokens * 768);
        snprintf(name, sizeof name, "attention %zux%zu, 12 heads of 64", texts, tokens);
        rate(name, run_attention, &plain, operations, 0);
        snprintf(name, sizeof name, "disentangled %zux%zu, its operations", texts, tokens);
        rate(name, run_disentangled, &d, operations, 0);
    }
}

static void measure_norm_and_gelu(void) {
    float *x = zeros(4 * 128 * 768), *y = zeros(4 * 128 * 768), *vector = zeros(4 * 768);
    struct norm n = {.x = x, .y = y, .residual = x, .factor = vector, .gamma = vector, .beta = vector, .epsilon = 1, .rows = 128,
                     .width = 768};
    struct gelu g = {.x = x, .y = y, .count = 128 * 768, .kind = GELU};
    if (level->kernels[NORM]) rate("norm 128x768, numbers", run_norm, &n, 128 * 768, 0);
    if (level->kernels[GELU_ALONE]) rate("gelu 128x768, numbers", run_gelu, &g, 128 * 768, 0);
}

int main(int count, char **arguments) {
    const size_t best = choose_level(INT8_OPERATORS, cpu_features() & ~AMX);
    for (level = LEVELS; level->name && count > 1 && strcmp(level->name, arguments[1]);) level++;
    if (count < 2) level = &LEVELS[best];
    if (!level->name || (level->needs & ~cpu_features())) return puts("no such level on this processor"), 1;
    const struct peaks peak = measure_peaks(cpu_features(), level->kernels[NORM] == &norm_avx512); /* else 256 bits */
    const double peaks[] = {peak.vnni, peak.bf16, peak.fma};
    for (enum operation kind = DENSE_INT8; kind <= DENSE_FP32; kind++)
        if (level->kernels[kind]) measure_dense(kind, peaks[kind]);
    for (enum operation kind = DENSE_INT8; kind <= DENSE_BF16; kind++)
        if (level->kernels[kind]) measure_ends(kind, peaks[kind]);
    if (level_has(level, 1 << ATTENTION)) measure_attention(level->kernels[DENSE_BF16] ? peak.bf16 : peak.vnni / 2); /* else of 16 bits */
    if (level_has(level, 1 << DISENTANGLED)) measure_disentangled();
    measure_norm_and_gelu();
    return 0;
}
