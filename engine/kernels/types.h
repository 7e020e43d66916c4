/* Types that all kernels share, and the one check of the compiler. */
#ifndef FUSEDBERT_TYPES_H
#define FUSEDBERT_TYPES_H

#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__)
#error "these kernels are for gcc on x86-64: fusedbert installs without them elsewhere"
#endif

#include <stddef.h>
#include <stdint.h>

enum activation { IDENTITY, GELU, GELU_TANH, RELU };

/* How float32 becomes eight bits: round(y / scale) + zero_point, saturating (ONNX QuantizeLinear). */
struct rounding {
    float inverse_scale;
    int32_t zero_point;
};

#endif
