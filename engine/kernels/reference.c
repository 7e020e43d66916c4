/* The mathematics of every kernel in plain C, one number at a time and in double. Tests compare the kernels with it; no library
 * contains it. The structs, and the units that the work is cut into, are explained in kernels.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "levels.h"

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static double activate(double x, enum activation kind) {
    if (kind != IDENTITY && x == -INFINITY) return 0; /* the limit; the equations below multiply it by 0 */
    if (kind == GELU) return x * 0.5 * erfc(-x / sqrt(2)); /* x Phi(x) (Hendrycks and Gimpel 2016) */
    if (kind == GELU_TANH) return x * 0.5 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    if (kind == RELU) return x > 0 ? x : 0;
    return x;
}

/* ONNX QuantizeLinear. NaN becomes 0. */
static uint8_t quantize(double y, struct rounding to) {
    const double q = nearbyint(y * to.inverse_scale) + to.zero_point;
    return (uint8_t)(q >= 255 ? 255 : q > 0 ? q : 0);
}

/* Weight of an input and an output, from its panel. */
static int32_t weight_at(const struct dense *d, size_t input, size_t output) {
    return d->weight[((output / PANEL * d->inputs / 4 + input / 4) * PANEL + output % PANEL) * 4 + input % 4];
}

static void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset) {
    for (size_t output = 0; output < PANEL * dense_panels(d); output++) {
        offset[output] = 0;
        for (size_t i = 0; i < d->inputs; i++) offset[output] += zero_point * weight_at(d, i, output);
    }
}

static void dense_unit(void *operation, size_t unit) {
    const struct dense *d = operation;
    const size_t panels = dense_panels(d), column = unit % panels * PANEL, row = unit / panels * DENSE_ROWS;
    for (size_t i = row; i < smaller(row + DENSE_ROWS, d->rows); i++)
        for (size_t j = column; j < smaller(column + PANEL, d->outputs); j++) {
            int32_t sum = 0;
            for (size_t k = 0; k < d->inputs; k++) sum += d->x[i * d->inputs + k] * weight_at(d, k, j);
            const double y = activate((double)(sum - d->offset[j]) * d->scale[j] + d->bias[j], d->activation);
            if (d->y) d->y[i * d->outputs + j] = (float)y;
            else d->y8[i * d->outputs + j] = quantize(y, d->rounding);
        }
}

/* The nearest number with 8 significant bits, ties to even. */
static double to_bf16(double x) {
    int exponent;
    const double fraction = frexp((double)(float)x, &exponent);
    return ldexp(nearbyint(fraction * 256), exponent - 8);
}

static void attention_unit(void *operation, size_t unit) {
    const struct attention *a = operation;
    const size_t text = unit / a->heads, hidden = a->heads * a->head, start = unit % a->heads * a->head;
    const size_t length = a->lengths ? (size_t)a->lengths[text] : a->keys;
    const float *k = a->k + text * a->keys * hidden + start, *v = a->v + text * a->keys * hidden + start;
    double *p = malloc((length + 1) * sizeof *p);
    for (size_t i = 0; i < a->queries; i++) {
        const float *q = a->q + (text * a->queries + i) * hidden + start;
        uint8_t *y8 = a->y8 + (text * a->queries + i) * hidden + start;
        if (!length || (a->queries == a->keys && i >= length)) { /* padding */
            memset(y8, a->rounding.zero_point, a->head);
            continue;
        }
        double largest = -INFINITY, total = 0;
        for (size_t j = 0; j < length; j++) {
            p[j] = 0;
            for (size_t d = 0; d < a->head; d++) p[j] += to_bf16(q[d]) * to_bf16(k[j * hidden + d]);
            if (p[j] > largest) largest = p[j];
        }
        for (size_t j = 0; j < length; j++) total += p[j] = exp(p[j] - largest);
        for (size_t d = 0; d < a->head; d++) {
            double sum = 0;
            for (size_t j = 0; j < length; j++) sum += to_bf16(p[j]) * to_bf16(v[j * hidden + d]);
            y8[d] = quantize(sum / total, a->rounding);
        }
    }
    free(p);
}

static size_t attention_scratch(const struct attention *a) { return (void)a, 0; }

static void norm_unit(void *operation, size_t unit) {
    const struct norm *n = operation;
    for (size_t row = unit * NORM_ROWS; row < smaller((unit + 1) * NORM_ROWS, n->rows); row++) {
        const size_t at = row * n->width;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n->width; i++) {
            n->y[at + i] = n->x[at + i];
            if (n->residual) n->y[at + i] += n->factor[i] * n->residual[at + i];
            mean += n->y[at + i] / (double)n->width;
        }
        for (size_t i = 0; i < n->width; i++) variance += (n->y[at + i] - mean) * (n->y[at + i] - mean) / (double)n->width;
        for (size_t i = 0; i < n->width; i++) {
            const double y = (n->y[at + i] - mean) / sqrt(variance + n->epsilon) * n->gamma[i] + n->beta[i];
            n->y[at + i] = (float)y;
            if (n->y8) n->y8[at + i] = quantize(y, n->rounding);
        }
    }
}

static void gelu_unit(void *operation, size_t unit) {
    const struct gelu *g = operation;
    for (size_t i = unit * GELU_NUMBERS; i < smaller((unit + 1) * GELU_NUMBERS, g->count); i++)
        g->y[i] = (float)activate(g->x[i], g->kind);
}

const struct kernel REFERENCE[OPERATIONS] = {
    [DENSE] = {.unit = dense_unit, .offsets = dense_offsets},
    [ATTENTION] = {.unit = attention_unit, .scratch = attention_scratch},
    [NORM] = {.unit = norm_unit},
    [GELU_ALONE] = {.unit = gelu_unit},
};
