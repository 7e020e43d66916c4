/* Speed of the kernels on one thread, next to the peak of the instruction that each is made of. ONNX Runtime is not needed.
 *
 *   cd tests/engine/kernels && K=../../../engine/kernels
 *   gcc -O3 benchmark.c $K/cpu_features.c $K/avx512/[adgn]*_*.c -lm -o /tmp/benchmark && /tmp/benchmark
 */
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../engine/kernels/kernels.h"

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
    printf("%-34s %8.1f G/s", name, 1e-9 * count / best);
    printf(peak ? "  %3.0f %% of the peak\n" : "\n", 1e-7 * count / best / peak);
    return 1e-9 * count / best;
}

/* 24 independent sums, enough for any latency; the assembly keeps them in registers. */
enum { SUMS = 24, LOOPS = 20000 };
#define PEAK(name, type, zero, step)                                                          \
    static void name(void *data) {                                                            \
        type sum[SUMS], a = zero;                                                             \
        (void)data;                                                                           \
        _Pragma("GCC unroll 24") for (int i = 0; i < SUMS; i++) sum[i] = zero;                \
        for (int loop = 0; loop < LOOPS; loop++)                                              \
            _Pragma("GCC unroll 24") for (int i = 0; i < SUMS; i++) {                         \
                sum[i] = step;                                                                \
                __asm__ volatile("" : "+v"(sum[i]));                                          \
            }                                                                                 \
    }
PEAK(peak_vnni, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sum[i], a, a))
PEAK(peak_bf16, __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)a))
PEAK(peak_fma, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, a, sum[i]))

static void *zeros(size_t bytes) { return memset(aligned_alloc(64, (bytes + 63) / 64 * 64), 0, bytes); }

static void run_dense(void *d) { for (size_t i = 0; i < dense_units(d); i++) dense_unit_avx512vnni(d, i); }
static void run_attention(void *a) { for (size_t i = 0; i < attention_units(a); i++) attention_unit_avx512bf16(a, i); }
static void run_norm(void *n) { for (size_t i = 0; i < norm_units(n); i++) norm_unit_avx512(n, i); }
static void run_gelu(void *g) { for (size_t i = 0; i < gelu_units(g); i++) gelu_unit_avx512(g, i); }

int main(void) {
    if (~cpu_features() & (AVX512 | AVX512VNNI | AVX512BF16)) return puts("this processor lacks AVX-512 VNNI or BF16"), 1;
    const double per_loop = 2.0 * SUMS * LOOPS;
    const double vnni = rate("vpdpbusd, peak", peak_vnni, NULL, 64 * per_loop, 0);
    const double bf16 = rate("vdpbf16ps, peak", peak_bf16, NULL, 32 * per_loop, 0);
    rate("vfmadd, peak", peak_fma, NULL, 16 * per_loop, 0);
    const size_t rows[] = {1, 14, 128, 1024}, widths[][2] = {{768, 768}, {768, 3072}, {3072, 768}};
    for (size_t w = 0; w < 3; w++)
        for (size_t r = 0; r < 4; r++) {
            const size_t in = widths[w][0], out = widths[w][1];
            struct dense d = {.x = zeros(rows[r] * in), .weight = zeros(in * out), .scale = zeros(4 * out), .bias = zeros(4 * out),
                              .offset = zeros(4 * out), .rows = rows[r], .inputs = in, .outputs = out, .rounding = {1, 128},
                              .activation = out > in ? GELU : IDENTITY, .y8 = out > in ? zeros(rows[r] * out) : NULL,
                              .y = out > in ? NULL : zeros(4 * rows[r] * out)};
            char name[64];
            snprintf(name, sizeof name, "dense%s %zux%zux%zu", out > in ? ", gelu" : "", rows[r], in, out);
            rate(name, run_dense, &d, 2.0 * (double)(rows[r] * in * out), vnni);
        }
    const size_t tokens[] = {16, 128, 512};
    for (size_t t = 0; t < 3; t++) {
        const size_t bytes = 4 * tokens[t] * 768;
        struct attention a = {.q = zeros(bytes), .k = zeros(bytes), .v = zeros(bytes), .batch = 1, .queries = tokens[t],
                              .keys = tokens[t], .heads = 12, .head = 64, .y8 = zeros(bytes / 4), .rounding = {1, 128}};
        a.scratch = zeros(attention_units(&a) * attention_scratch_avx512bf16(&a));
        char name[64];
        snprintf(name, sizeof name, "attention 1x%zu, 12 heads of 64", tokens[t]);
        rate(name, run_attention, &a, 4.0 * (double)(tokens[t] * tokens[t] * 768), bf16);
    }
    float *x = zeros(4 * 128 * 768), *y = zeros(4 * 128 * 768), *vector = zeros(4 * 768);
    struct norm n = {.x = x, .y = y, .residual = x, .factor = vector, .gamma = vector, .beta = vector, .epsilon = 1, .rows = 128,
                     .width = 768};
    struct gelu g = {.x = x, .y = y, .count = 128 * 768, .kind = GELU};
    rate("norm 128x768, numbers", run_norm, &n, 128 * 768, 0);
    rate("gelu 128x768, numbers", run_gelu, &g, 128 * 768, 0);
}
