/* Types that all kernels share, and the words in which gcc and clang differ. */
#ifndef FUSEDBERT_TYPES_H
#define FUSEDBERT_TYPES_H

#if !defined(__x86_64__) || !defined(__GNUC__)
#error "these kernels are for gcc or clang on x86-64: fusedbert installs without them elsewhere"
#endif

#include <stddef.h>
#include <stdint.h>

/* Compile the code between TARGET and END_TARGET for these instruction sets, and unroll the loop after UNROLL, whose number of
 * turns, at most n, is known when it is compiled. Headers of the system are included before TARGET. */
#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#ifdef __clang__
#define TARGET(sets) PRAGMA(clang attribute push(__attribute__((target(sets))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#define UNROLL(n) PRAGMA(clang loop unroll(full))
#else
#define TARGET(sets) PRAGMA(GCC push_options) PRAGMA(GCC target(sets))
#define END_TARGET PRAGMA(GCC pop_options)
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif
#define INLINE static inline __attribute__((always_inline))

/* A symbol that others find in the library; all else is hidden. */
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum format { FLOAT32, BFLOAT16 };
typedef uint16_t bf16; /* bfloat16: the upper half of a float32 */

enum activation { IDENTITY, GELU, GELU_TANH, RELU };
enum ending { ACTIVATED, GATED, TURNED }; /* what becomes of a product's sums: see struct dense */

/* How float32 becomes eight bits: round(y / scale) + zero_point, saturating (ONNX QuantizeLinear). */
struct rounding {
    float inverse_scale;
    int32_t zero_point;
};

#endif
