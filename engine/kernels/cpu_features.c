/* The instruction sets of this processor that kernels are written for: cpuid, and xgetbv, because a set counts only if the
 * system saves its registers (Intel's manual, volume 1, 13.3 and 14.3; bits of cpuid: volume 2). */
#include <cpuid.h>
#include <stdatomic.h>

#include "levels.h"

const char *const FEATURE_NAMES[] = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", NULL};

unsigned features_of(const struct cpuid *c) {
    enum { AVX_STATE = 0x6, AVX512_STATE = 0xe6, AMX_STATE = 0x60000 }; /* of XCR0 */
    enum { FMA = 1u << 12, VNNI = 1u << 11, AVXVNNI = 1u << 4, BF16 = 1u << 5 };
    const uint32_t avx2 = 1u << 5, f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, tiles_int8 = 1u << 24 | 1u << 25;
    unsigned found = 0;
    if ((c->xcr0 & AVX_STATE) == AVX_STATE && (c->leaf7_ebx & avx2) && (c->leaf1_ecx & FMA)) {
        found |= AVX2;
        if (c->leaf7_1_eax & AVXVNNI) found |= AVX_VNNI;
    }
    if ((c->xcr0 & AVX512_STATE) == AVX512_STATE && (c->leaf7_ebx & f_dq_bw_vl) == f_dq_bw_vl) {
        found |= AVX512;
        if (c->leaf7_ecx & VNNI) found |= AVX512_VNNI;
        if (c->leaf7_1_eax & BF16) found |= AVX512_BF16;
    }
    if ((c->xcr0 & AMX_STATE) == AMX_STATE && (c->leaf7_edx & tiles_int8) == tiles_int8) found |= AMX;
    return found;
}

static unsigned detect(void) {
    enum { OSXSAVE = 1u << 27 }; /* xgetbv is there, and the system uses it */
    struct cpuid c = {0};
    uint32_t a, b, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c.leaf1_ecx, &d) || !(c.leaf1_ecx & OSXSAVE)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    c.xcr0 = (uint64_t)high << 32 | low;
    if (!__get_cpuid_count(7, 0, &a, &c.leaf7_ebx, &c.leaf7_ecx, &c.leaf7_edx)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &c.leaf7_1_eax, &b, &low, &d);
    return features_of(&c);
}

unsigned cpu_features(void) {
    enum { KNOWN = 1u << 31 };
    static atomic_uint features; /* cpuid is slow in a virtual machine; threads that ask at the same time find the same */
    unsigned found = atomic_load(&features);
    if (!found) atomic_store(&features, found = detect() | KNOWN);
    return found & ~KNOWN;
}
