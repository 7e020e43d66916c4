/* y = x W + b in eight bits: unsigned activations by signed weights, 32-bit sums (vpdpbusd of AVX-512 VNNI).
 *
 * The weights lie in panels of PANEL outputs, and in a panel by fours of inputs: int8 [panels, inputs / 4, PANEL, 4], the
 * order in which vpdpbusd takes them, so that a panel is read once from front to back. Both sizes are rounded up with zeros.
 */
#ifndef FUSEDBERT_DENSE_H
#define FUSEDBERT_DENSE_H

#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__)
#error "these kernels are for gcc on x86-64: fusedbert installs without them elsewhere"
#endif

#include <stddef.h>
#include <stdint.h>

#define PANEL 32 /* outputs of a panel: two registers of 16 */
#define ROWS 14  /* rows of x at a time: 28 of the 32 registers are sums */

enum activation { IDENTITY, GELU, GELU_TANH, RELU };

/* How float32 becomes eight bits: round(y / scale) + zero_point, saturating (ONNX QuantizeLinear). */
struct rounding {
    float inverse_scale;
    int32_t zero_point;
};

struct dense {
    const uint8_t *x;      /* [rows, inputs] */
    const int8_t *weight;  /* [panels, inputs / 4, PANEL, 4] */
    const float *scale;    /* [outputs]: of an input step times that of a weight step */
    const float *bias;     /* [outputs] */
    const int32_t *offset; /* [PANEL * panels]: zero point of x times the sum of each output's weights */
    size_t rows, inputs, outputs;
    enum activation activation;
    float *y;     /* [rows, outputs], or NULL: eight bits are wanted */
    uint8_t *y8;  /* [rows, outputs], or NULL */
    struct rounding rounding; /* of y8 */
};

/* Fill in offset [PANEL * panels]. */
void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset);

/* Compute one panel's columns of y for the rows from first up to last. */
void dense_panel(const struct dense *d, size_t panel, size_t first, size_t last);

/* Number of panels. */
static inline size_t dense_panels(const struct dense *d) { return (d->outputs + PANEL - 1) / PANEL; }

#endif
