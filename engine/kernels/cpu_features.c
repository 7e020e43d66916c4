/* The instruction sets of this processor that kernels are written for (CPUID). */
#include <cpuid.h>

#include "kernels.h"

static unsigned features;

/* AMX counts only if the system saves the tiles: XCR0 then has the bits of both parts of their state (Intel's manual, volume 1,
 * 13.3). */
static int has_amx(void) {
    unsigned a, b, c, d, low = 0, high = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 25 & 1)) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* xgetbv is missing */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3) == 3;
}

/* Runs while the library is loaded, before any thread can ask. */
__attribute__((constructor)) static void detect(void) {
    __builtin_cpu_init();
    if (has_amx()) features |= AMX;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return;
    if (!__builtin_cpu_supports("avx512dq")) return;
    features |= AVX512;
    if (!__builtin_cpu_supports("avx512vnni")) return;
    features |= AVX512VNNI;
    if (__builtin_cpu_supports("avx512bf16")) features |= AVX512BF16;
}

unsigned cpu_features(void) { return features; }
