/* The table of levels, and the choice among them. */
#include "levels.h"

extern const struct kernel dense_avx512vnni, dense_avx512bf16, dense_avx512, attention_avx512bf16, attention_avx512vnni, norm_avx512,
    disentangled_avx512bf16, disentangled_avx512vnni, gelu_avx512, embed_int8_avx512, embed_bf16_avx512;
extern const struct kernel dense_avx512vnni_256, dense_avxvnni, attention_avx512vnni_256, attention_avxvnni, norm_avx2, embed_avx2,
    disentangled_avx512vnni_256, disentangled_avxvnni;

/* Best first. A user forces a level by its name. The last one runs everywhere, and leaves everything to ONNX Runtime. */
const struct level LEVELS[MAX_LEVELS] = {
    {"avx512bf16", AVX512 | AVX512_VNNI | AVX512_BF16,
     {[DENSE_INT8] = &dense_avx512vnni, [DENSE_BF16] = &dense_avx512bf16, [DENSE_FP32] = &dense_avx512,
      [ATTENTION] = &attention_avx512bf16, [NORM] = &norm_avx512, [GELU_ALONE] = &gelu_avx512,
      [EMBED_INT8] = &embed_int8_avx512, [EMBED_BF16] = &embed_bf16_avx512, [DISENTANGLED] = &disentangled_avx512bf16}},
    {"avx512vnni", AVX512 | AVX512_VNNI,
     {[DENSE_INT8] = &dense_avx512vnni, [DENSE_FP32] = &dense_avx512, [ATTENTION] = &attention_avx512vnni, [NORM] = &norm_avx512,
      [GELU_ALONE] = &gelu_avx512, [EMBED_INT8] = &embed_int8_avx512, [DISENTANGLED] = &disentangled_avx512vnni}},
    {"avx512vnni_256", AVX2 | AVX512 | AVX512_VNNI, /* nowhere the default: to try what avxvnni does */
     {[DENSE_INT8] = &dense_avx512vnni_256, [ATTENTION] = &attention_avx512vnni_256, [NORM] = &norm_avx2,
      [EMBED_INT8] = &embed_avx2, [DISENTANGLED] = &disentangled_avx512vnni_256}},
    {"avx512", AVX512, {[DENSE_FP32] = &dense_avx512, [NORM] = &norm_avx512, [GELU_ALONE] = &gelu_avx512}},
    {"avxvnni", AVX2 | AVX_VNNI,
     {[DENSE_INT8] = &dense_avxvnni, [ATTENTION] = &attention_avxvnni, [NORM] = &norm_avx2, [EMBED_INT8] = &embed_avx2,
      [DISENTANGLED] = &disentangled_avxvnni}},
    {"onnxruntime", 0, {NULL}},
};

size_t choose_level(enum operators set, unsigned features) {
    static const unsigned worth[SETS] = { /* else nothing is gained */
        1u << DENSE_INT8, 1u << DENSE_BF16, 1u << NORM | 1u << GELU_ALONE, 1u << DENSE_INT8 | 1u << DISENTANGLED};
    size_t i = 0;
    for (; LEVELS[i].needs; i++) {
        /* ONNX Runtime multiplies eight bits in AMX's tiles: faster for batches and long texts, see README.md. Disentangled
         * attention costs more as a function than that saves. */
        if (set == INT8_OPERATORS && (features & AMX)) continue;
        if (!(LEVELS[i].needs & ~features) && level_has(&LEVELS[i], worth[set])) break;
    }
    return i;
}

/* For Python: the table with this processor's choice, by ctypes. fusedbert.engine.kernels declares the same types. */
EXPORT const struct level *fusedbert_levels(void) { return LEVELS; }
EXPORT const char *const *fusedbert_feature_names(void) { return FEATURE_NAMES; }
EXPORT unsigned fusedbert_features(void) { return cpu_features(); }
EXPORT size_t fusedbert_choose(int set, unsigned features) { return choose_level((enum operators)set, features); }
