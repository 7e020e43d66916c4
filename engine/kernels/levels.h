/* The levels: the instruction sets that a processor needs for each, and the kernels that run there. levels.c has the table. */
#ifndef FUSEDBERT_LEVELS_H
#define FUSEDBERT_LEVELS_H

#include "kernels.h"

/* Instruction sets, as bits. FEATURE_NAMES, in the same order and up to NULL, has the names that /proc/cpuinfo gives them.
 * AVX2 is counted with FMA, and AVX512 is F, BW, DQ and VL. */
enum { AVX2 = 1, AVX512 = 2, AVX512_VNNI = 4, AVX_VNNI = 8, AVX512_BF16 = 16, AMX = 32 };
extern const char *const FEATURE_NAMES[];

/* What cpuid and xgetbv say, and the instruction sets that follow from it: those whose registers the system saves. */
struct cpuid {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
    uint64_t xcr0;
};
unsigned features_of(const struct cpuid *c);
unsigned cpu_features(void); /* of this processor */

enum operation { DENSE_INT8, DENSE_BF16, DENSE_FP32, ATTENTION, NORM, GELU_ALONE, EMBED_INT8, EMBED_BF16, DISENTANGLED, OPERATIONS };

struct level {
    const char *name;
    unsigned needs;                           /* instruction sets */
    const struct kernel *kernels[OPERATIONS]; /* NULL: ONNX Runtime's */
};
extern const struct level LEVELS[]; /* up to a name that is NULL */
enum { MAX_LEVELS = 16 };

/* The sets of operators: a session gets those of its graph. INT8_POSITIONS: of an int8 graph with disentangled attention. */
enum operators { INT8_OPERATORS, BF16_OPERATORS, FP32_OPERATORS, INT8_POSITIONS, SETS };

/* Return whether a level has all kernels that an operator needs: operations, as bits. */
static inline int level_has(const struct level *level, unsigned operations) {
    for (unsigned i = 0; i < OPERATIONS; i++)
        if ((operations >> i & 1) && !level->kernels[i]) return 0;
    return 1;
}

/* Return the best level for a set of operators on a processor with these instruction sets, as its index. */
size_t choose_level(enum operators set, unsigned features);

#endif
