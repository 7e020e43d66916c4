/* The operators of the int8 graph, of the domain "fusedbert".
 *
 *   Dense          y  = x W + b
 *   DenseGelu      y8 = gelu(x W + b), and so DenseGeluTanh, DenseRelu
 *   DenseGeglu     y8 = gelu(a) g, a and g being halves of x W + b, and so DenseGegluTanh, DenseReglu
 *   DenseRope      y  = rope(x W + b)
 *   DenseAddNorm   y  = norm(x W + b + factor residual), and y8
 *   DenseAddPreNorm  y = x W + b + factor residual, and y8 = norm(y)
 *   Attention      y8 = softmax(q k^T) v for each head, side by side
 *   WindowAttention  the same for the keys at most window before or after a query
 *   DisentangledAttention  the same of scores with positions, softmax(q k^T + q K[b(i - j)] + k Q[b(i - j)]) v
 *   Embed          y  = norm(word + position + segment), and y8; positions and segments may be left out
 *   Lengths        the number of each text's tokens
 *
 * x and y8 are eight bits, unsigned; the rest is float32. A model that uses an operator also contains a function of the same
 * name, in standard operators: ONNX Runtime runs it where this library is not registered, or at a level without a kernel for
 * it.
 */
#include "disentangled.h"
#include "inputs.h"

static OrtStatus *rounding_of(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct rounding *rounding) {
    struct tensor scale, zero_point;
    TRY(constant(ort, info, index, &scale));
    TRY(constant(ort, info, index + 1, &zero_point));
    EXPECT(scale.count == 1 && zero_point.count == 1, "the scale and zero point of an output have to be one number each");
    rounding->inverse_scale = 1.0f / *(const float *)scale.data;
    rounding->zero_point = *(const uint8_t *)zero_point.data;
    return NULL;
}

/* The inputs of a product: x, its zero point, weight, scale; the bias follows at k->bias. */
static OrtStatus *dense_read(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, struct dense_kernel *k) {
    struct tensor zero_point, scale;
    struct dense *d = &k->dense;
    k->ort = ort;
    k->gemm = self->level->kernels[DENSE_INT8], k->normalize = self->level->kernels[NORM];
    k->bias = 4;
    d->activation = self->activation;
    TRY(constant(ort, info, 1, &zero_point));
    TRY(constant(ort, info, 3, &scale));
    EXPECT(zero_point.count == 1, "the zero point of an input has to be one number");
    d->scale = scale.data, d->outputs = scale.count;
    TRY(dense_weights(ort, info, k, 2, 4));
    int32_t *offset = malloc(sizeof(int32_t) * PANEL * (dense_panels(d) + 1));
    if (!offset) return CreateStatus(ORT_FAIL, "out of memory");
    d->offset = offset;
    k->gemm->offsets(d, *(const uint8_t *)zero_point.data, offset);
    return NULL;
}

static OrtStatus *dense_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    return dense_read(self, ort, info, kernel);
}

static OrtStatus *dense_activation_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                          void *kernel) {
    struct dense_kernel *k = kernel;
    k->narrow = 1;
    TRY(dense_read(self, ort, info, k));
    return rounding_of(ort, info, 5, &k->dense.rounding);
}

static OrtStatus *dense_gated_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(dense_activation_create(self, ort, info, kernel));
    return gated(ort, &((struct dense_kernel *)kernel)->dense);
}

static OrtStatus *dense_rope_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(dense_read(self, ort, info, kernel));
    return rope_tables(ort, info, kernel, 5);
}

static OrtStatus *dense_add_norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                        void *kernel) {
    struct dense_kernel *k = kernel;
    struct tensor factor;
    TRY(dense_read(self, ort, info, k));
    TRY(optional_constant(ort, info, 6, &factor));
    EXPECT(!factor.data || factor.count == k->dense.outputs, "factor, gamma and beta have to be as wide as the product");
    k->norm.factor = factor.data;
    TRY(norm_weights(ort, info, &k->norm, k->dense.outputs, 7));
    return rounding_of(ort, info, 9, &k->norm.rounding);
}

static OrtStatus *dense_add_pre_norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                            void *kernel) {
    ((struct dense_kernel *)kernel)->norm.keeps_sum = 1;
    return dense_add_norm_create(self, ort, info, kernel);
}

static OrtStatus *attention_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct attention_kernel *k = kernel;
    k->attention.format = FLOAT32;
    TRY(attention_start(self, ort, info, k));
    return rounding_of(ort, info, 4, &k->attention.rounding);
}

static OrtStatus *window_attention_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                          void *kernel) {
    TRY(attention_create(self, ort, info, kernel));
    return window_of(ort, info, kernel);
}

static OrtStatus *disentangled_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(attention_create(self, ort, info, kernel));
    return disentangled_start(self, ort, info, kernel, 6);
}

static OrtStatus *embed_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct embed_kernel *k = kernel;
    struct tensor scale;
    TRY(embed_start(ort, info, k, self->level->kernels[EMBED_INT8]));
    TRY(constant(ort, info, 7, &scale));
    EXPECT(scale.count == k->embed.words, "there has to be one scale for each word");
    k->embed.scale = scale.data;
    return rounding_of(ort, info, 8, &k->embed.norm.rounding);
}

#define dense_activation_compute dense_compute
#define dense_gated_compute dense_compute
#define dense_rope_compute dense_compute
#define dense_add_pre_norm_compute dense_add_norm_compute
#define window_attention_compute attention_compute
static const struct custom_op OPERATORS[] = {
    /* x, zero point, weight, scale, bias; then the operator's other operands, and the output's scale and zero point */
    CUSTOM_OP("Dense", "uuifF", "f", dense, dense_kernel, dense_destroy, IDENTITY, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGelu", "uuifFfu", "u", dense_activation, dense_kernel, dense_destroy, GELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGeluTanh", "uuifFfu", "u", dense_activation, dense_kernel, dense_destroy, GELU_TANH, 1 << DENSE_INT8),
    CUSTOM_OP("DenseRelu", "uuifFfu", "u", dense_activation, dense_kernel, dense_destroy, RELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGeglu", "uuifFfu", "u", dense_gated, dense_kernel, dense_destroy, GELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGegluTanh", "uuifFfu", "u", dense_gated, dense_kernel, dense_destroy, GELU_TANH, 1 << DENSE_INT8),
    CUSTOM_OP("DenseReglu", "uuifFfu", "u", dense_gated, dense_kernel, dense_destroy, RELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseRope", "uuifFff", "f", dense_rope, dense_kernel, dense_destroy, IDENTITY, 1 << DENSE_INT8),
    CUSTOM_OP("DenseAddNorm", "uuifFfffffu", "fu", dense_add_norm, dense_kernel, dense_destroy, IDENTITY,
              1 << DENSE_INT8 | 1 << NORM),
    CUSTOM_OP("DenseAddPreNorm", "uuifFfFfffu", "fu", dense_add_pre_norm, dense_kernel, dense_destroy, IDENTITY,
              1 << DENSE_INT8 | 1 << NORM),
    /* queries, keys, values, lengths, scale and zero point of the output */
    CUSTOM_OP("Attention", "ffflfu", "u", attention, attention_kernel, attention_destroy, IDENTITY, 1 << ATTENTION),
    CUSTOM_OP("WindowAttention", "ffflfu", "u", window_attention, attention_kernel, attention_destroy, IDENTITY, 1 << ATTENTION),
    /* the same, tables of positions for keys and for queries, buckets */
    CUSTOM_OP("DisentangledAttention", "ffflfuHHlF", "u", disentangled, disentangled_kernel, attention_destroy, IDENTITY,
              1 << DISENTANGLED),
    /* ids, segments, words, positions, vectors of the segments, gamma, beta, scales of the words; scale and zero point of y8 */
    CUSTOM_OP("Embed", "lLiFFffffu", "fu", embed, embed_kernel, free, IDENTITY, 1 << EMBED_INT8),
};

static const struct custom_op SHARED[] = {
    CUSTOM_OP("Lengths", "l", "l", lengths, lengths_kernel, free, IDENTITY, 0),
};

const struct custom_ops CUSTOM_SHARED = {"fusedbert", SHARED, sizeof SHARED / sizeof *SHARED}; /* with the bf16 graph */
const struct custom_ops CUSTOM_INT8 = {"fusedbert", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS};
