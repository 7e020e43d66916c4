/* The operators of the bfloat16 graph, of the domain "fusedbert".
 *
 *   Bf16Dense          y16 = x W + b
 *   Bf16DenseGelu      y16 = gelu(x W + b), and so Bf16DenseGeluTanh, Bf16DenseRelu
 *   Bf16DenseGeglu     y16 = gelu(a) g, a and g being halves of x W + b, and so Bf16DenseGegluTanh, Bf16DenseReglu
 *   Bf16DenseRope      y16 = rope(x W + b)
 *   Bf16DenseAddNorm   y   = norm(x W + b + residual), and y16
 *   Bf16DenseAddPreNorm  y = x W + b + residual, and y16 = norm(y)
 *   Bf16Attention      y16 = softmax(q k^T) v for each head, side by side
 *   Bf16WindowAttention  the same for the keys at most window before or after a query
 *   Bf16DisentangledAttention  the same of scores with positions, as in int8
 *   Bf16Embed          y   = norm(word + position + segment), and y16; the words are float16
 *
 * x, W and y16 are bfloat16; the rest, sums too, is float32. As in int8 each is also a function of the model.
 */
#include "disentangled.h"
#include "inputs.h"

/* The inputs of a product: x, weight, bias. The number of outputs is an attribute, because panels are rounded up. */
static OrtStatus *dense_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct dense_kernel *k = kernel;
    int64_t outputs = 0;
    k->ort = ort;
    k->gemm = self->level->kernels[DENSE_BF16], k->normalize = self->level->kernels[NORM];
    k->bias = 2, k->narrow = 1;
    k->dense.activation = self->activation;
    TRY(KernelInfoGetAttribute_int64(info, "width", &outputs));
    EXPECT(outputs > 0, "a product has to have inputs and outputs");
    k->dense.outputs = (size_t)outputs;
    return dense_weights(ort, info, k, 1, 2);
}

static OrtStatus *dense_gated_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(dense_create(self, ort, info, kernel));
    return gated(ort, &((struct dense_kernel *)kernel)->dense);
}

static OrtStatus *dense_rope_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(dense_create(self, ort, info, kernel));
    return rope_tables(ort, info, kernel, 3);
}

static OrtStatus *dense_add_norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                        void *kernel) {
    struct dense_kernel *k = kernel;
    TRY(dense_create(self, ort, info, kernel));
    return norm_weights(ort, info, &k->norm, k->dense.outputs, 4);
}

static OrtStatus *dense_add_pre_norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                            void *kernel) {
    ((struct dense_kernel *)kernel)->norm.keeps_sum = 1;
    return dense_add_norm_create(self, ort, info, kernel);
}

static OrtStatus *attention_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct attention_kernel *k = kernel;
    k->attention.format = BFLOAT16;
    return attention_start(self, ort, info, k);
}

static OrtStatus *window_attention_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                          void *kernel) {
    TRY(attention_create(self, ort, info, kernel));
    return window_of(ort, info, kernel);
}

static OrtStatus *disentangled_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    TRY(attention_create(self, ort, info, kernel));
    return disentangled_start(self, ort, info, kernel, 4);
}

static OrtStatus *embed_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    return embed_start(ort, info, kernel, self->level->kernels[EMBED_BF16]);
}

#define dense_gated_compute dense_compute
#define dense_rope_compute dense_compute
#define dense_add_pre_norm_compute dense_add_norm_compute
#define window_attention_compute attention_compute
static const struct custom_op OPERATORS[] = {
    CUSTOM_OP("Bf16Dense", "hhF", "h", dense, dense_kernel, dense_destroy, IDENTITY, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseGelu", "hhF", "h", dense, dense_kernel, dense_destroy, GELU, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseGeluTanh", "hhF", "h", dense, dense_kernel, dense_destroy, GELU_TANH, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseRelu", "hhF", "h", dense, dense_kernel, dense_destroy, RELU, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseGeglu", "hhF", "h", dense_gated, dense_kernel, dense_destroy, GELU, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseGegluTanh", "hhF", "h", dense_gated, dense_kernel, dense_destroy, GELU_TANH, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseReglu", "hhF", "h", dense_gated, dense_kernel, dense_destroy, RELU, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseRope", "hhFff", "h", dense_rope, dense_kernel, dense_destroy, IDENTITY, 1 << DENSE_BF16),
    CUSTOM_OP("Bf16DenseAddNorm", "hhFfff", "fh", dense_add_norm, dense_kernel, dense_destroy, IDENTITY,
              1 << DENSE_BF16 | 1 << NORM),
    CUSTOM_OP("Bf16DenseAddPreNorm", "hhFfff", "fh", dense_add_pre_norm, dense_kernel, dense_destroy, IDENTITY,
              1 << DENSE_BF16 | 1 << NORM),
    CUSTOM_OP("Bf16Attention", "hhhl", "h", attention, attention_kernel, attention_destroy, IDENTITY,
              1 << DENSE_BF16 | 1 << ATTENTION),
    CUSTOM_OP("Bf16WindowAttention", "hhhl", "h", window_attention, attention_kernel, attention_destroy, IDENTITY,
              1 << DENSE_BF16 | 1 << ATTENTION),
    CUSTOM_OP("Bf16DisentangledAttention", "hhhlHHlF", "h", disentangled, disentangled_kernel, attention_destroy, IDENTITY,
              1 << DENSE_BF16 | 1 << DISENTANGLED),
    CUSTOM_OP("Bf16Embed", "lLeFFff", "fh", embed, embed_kernel, free, IDENTITY, 1 << EMBED_BF16),
};

const struct custom_ops CUSTOM_BF16 = {"fusedbert", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS};
