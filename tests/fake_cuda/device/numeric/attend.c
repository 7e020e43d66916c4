/* Attention of one head in one text: see numeric.h. */
#include "numeric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Compiled for several instruction sets; the processor picks the best, so a build works on any machine. */
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3,fast-math")))

WIDE static void scores_of(const float *q, const float *turned, size_t keys, size_t width, float *scores) {
    memset(scores, 0, keys * sizeof *scores);
    for (size_t d = 0; d < width; d++) /* turned: [width, keys] */
        for (size_t j = 0; j < keys; j++) scores[j] += q[d] * turned[d * keys + j];
}

WIDE static void mix(const float *shares, const float *values, size_t keys, size_t width, float *out) {
    memset(out, 0, width * sizeof *out);
    for (size_t j = 0; j < keys; j++)
        for (size_t d = 0; d < width; d++) out[d] += shares[j] * values[j * width + d];
}

static float softmax(float *x, size_t count, float scale) {
    float most = -INFINITY, sum = 0;
    for (size_t j = 0; j < count; j++) most = fmaxf(most, x[j] *= scale);
    for (size_t j = 0; j < count; j++) sum += x[j] = expf(x[j] - most);
    return sum;
}

void attend(const struct attention *a) {
    float *turned = malloc((a->keys * (a->width + a->value_width + 1) + a->width + a->value_width) * sizeof *turned);
    if (!turned) abort();
    float *values = turned + a->keys * a->width, *scores = values + a->keys * a->value_width;
    float *q = scores + a->keys, *out = q + a->width;
    for (size_t j = 0; j < a->keys; j++) {
        for (size_t d = 0; d < a->width; d++) turned[d * a->keys + j] = from_half(a->k[j * a->k_step + d]);
        for (size_t d = 0; d < a->value_width; d++) values[j * a->value_width + d] = from_half(a->v[j * a->v_step + d]);
    }
    for (size_t i = 0; i < a->queries; i++) {
        for (size_t d = 0; d < a->width; d++) q[d] = from_half(a->q[i * a->q_step + d]);
        scores_of(q, turned, a->keys, a->width, scores);
        const float sum = softmax(scores, a->keys, a->scale);
        mix(scores, values, a->keys, a->value_width, out);
        for (size_t d = 0; d < a->value_width; d++) a->o[i * a->o_step + d] = to_half(a->keys ? out[d] / sum : 0);
    }
    free(turned);
}
