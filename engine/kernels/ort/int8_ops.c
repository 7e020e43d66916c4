/* The operators of the domain "fusedbert", registered with an ONNX Runtime session.
 *
 *   Dense          y  = x W + b
 *   DenseGelu      y8 = gelu(x W + b), and so DenseGeluTanh, DenseRelu
 *   DenseAddNorm   y  = norm(x W + b + factor residual), and y8
 *   Attention      y8 = softmax(q k^T) v for each head, side by side
 *
 * x and y8 are eight bits, unsigned; the rest is float32. A model that uses an operator also contains a function of the same
 * name, in standard operators: ONNX Runtime runs it where this library is not registered, or at a level without a kernel for
 * it.
 */
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "custom_op.h"

static OrtStatus *rounding_of(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct rounding *rounding) {
    struct tensor scale, zero_point;
    TRY(constant(ort, info, index, &scale));
    TRY(constant(ort, info, index + 1, &zero_point));
    EXPECT(scale.count == 1 && zero_point.count == 1, "the scale and zero point of an output have to be one number each");
    rounding->inverse_scale = 1.0f / *(const float *)scale.data;
    rounding->zero_point = *(const uint8_t *)zero_point.data;
    return NULL;
}

/* Dense */

struct dense_kernel {
    const OrtApi *ort;
    const struct kernel *gemm, *normalize;
    struct dense dense; /* without the inputs of a run */
    struct norm norm;   /* of DenseAddNorm, likewise */
};

/* Ask for pages of 2 MiB under a large weight: with pages of 4 KiB a run of BERT-base looks up tens of thousands of them, and a
 * single text waits for that. MADV_COLLAPSE moves the present content (Linux 6.1); a refusal changes nothing. */
static void advise_huge_pages(const void *data, size_t bytes) {
#ifdef __linux__
    enum { PAGE = 2 << 20, LARGE = 1 << 20, HUGEPAGE = 14, COLLAPSE = 25 }; /* MADV_HUGEPAGE, MADV_COLLAPSE */
    if (bytes < LARGE) return;
    const uintptr_t start = (uintptr_t)data / PAGE * PAGE, end = ((uintptr_t)data + bytes + PAGE - 1) / PAGE * PAGE;
    madvise((void *)start, end - start, HUGEPAGE);
    madvise((void *)start, end - start, COLLAPSE);
#else
    (void)data, (void)bytes;
#endif
}

static OrtStatus *dense_weights(const OrtApi *ort, const OrtKernelInfo *info, const struct kernel *gemm, struct dense *d) {
    struct tensor zero_point, weight, scale, bias;
    TRY(constant(ort, info, 1, &zero_point));
    TRY(constant(ort, info, 2, &weight));
    TRY(constant(ort, info, 3, &scale));
    TRY(constant(ort, info, 4, &bias));
    d->weight = weight.data, d->scale = scale.data, d->bias = bias.data;
    d->outputs = bias.count;
    EXPECT(zero_point.count == 1, "the zero point of an input has to be one number");
    EXPECT(weight.rank == 4 && weight.shape[2] == PANEL && weight.shape[3] == 4,
           "weights have to be [panels, inputs / 4, 32, 4]");
    EXPECT((size_t)weight.shape[0] == dense_panels(d) && scale.count == d->outputs,
           "panels, scales and biases have to have the same number of outputs");
    d->inputs = 4 * (size_t)weight.shape[1];
    EXPECT(d->inputs && d->outputs, "a product has to have inputs and outputs");
    advise_huge_pages(d->weight, weight.count);
    int32_t *offset = malloc(sizeof(int32_t) * PANEL * (dense_panels(d) + 1));
    if (!offset) return CreateStatus(ORT_FAIL, "out of memory");
    d->offset = offset;
    gemm->offsets(d, *(const uint8_t *)zero_point.data, offset);
    return NULL;
}

static OrtStatus *dense_run(const OrtApi *ort, OrtKernelContext *context, const struct kernel *gemm, struct dense *d) {
    enum { WEIGHT_ROWS = 14 }; /* reading the weights costs about as much as this many rows */
    const double products = (double)(d->rows + WEIGHT_ROWS) * (double)(d->inputs * d->outputs);
    return parallel_for(ort, context, gemm, dense_units(d), products, d);
}

/* Get x, and turn its shape into that of the output. */
static OrtStatus *dense_input(const OrtApi *ort, OrtKernelContext *context, struct dense *d, struct tensor *x) {
    TRY(input(ort, context, 0, x));
    EXPECT(x->rank >= 2 && (size_t)x->shape[x->rank - 1] == d->inputs, "the input of a product is not as wide as its weights");
    d->x = x->data;
    d->rows = x->count / d->inputs;
    x->shape[x->rank - 1] = (int64_t)d->outputs;
    return NULL;
}

static OrtStatus *dense_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct tensor x;
    TRY(dense_input(ort, context, &d, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y));
    return dense_run(ort, context, self->gemm, &d);
}

static OrtStatus *dense_activation_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct tensor x;
    TRY(dense_input(ort, context, &d, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y8));
    return dense_run(ort, context, self->gemm, &d);
}

static OrtStatus *dense_add_norm_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct norm norm = self->norm;
    struct tensor x, residual;
    TRY(dense_input(ort, context, &d, &x));
    TRY(input(ort, context, 5, &residual));
    EXPECT(residual.count == d.rows * d.outputs, "the residual does not have the size of the product");
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y));
    TRY(output(ort, context, 1, x.shape, x.rank, &norm.y8));
    TRY(dense_run(ort, context, self->gemm, &d));
    norm.x = norm.y = d.y, norm.residual = residual.data, norm.width = d.outputs, norm.rows = d.rows;
    return parallel_for(ort, context, self->normalize, norm_units(&norm), (double)(d.rows * d.outputs), &norm);
}

static OrtStatus *dense_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct dense_kernel *k = kernel;
    k->ort = ort;
    k->gemm = self->level->kernels[DENSE_INT8], k->normalize = self->level->kernels[NORM];
    k->dense.activation = self->activation;
    return dense_weights(ort, info, k->gemm, &k->dense);
}

static void dense_destroy(void *kernel) {
    const struct dense_kernel *self = kernel;
    free((void *)self->dense.offset);
    free(kernel);
}

static OrtStatus *dense_activation_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                          void *kernel) {
    struct dense_kernel *k = kernel;
    TRY(dense_create(self, ort, info, kernel));
    return rounding_of(ort, info, 5, &k->dense.rounding);
}

static OrtStatus *dense_add_norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                        void *kernel) {
    struct dense_kernel *k = kernel;
    struct tensor factor, gamma, beta;
    TRY(dense_create(self, ort, info, kernel));
    TRY(constant(ort, info, 6, &factor));
    TRY(constant(ort, info, 7, &gamma));
    TRY(constant(ort, info, 8, &beta));
    TRY(rounding_of(ort, info, 9, &k->norm.rounding));
    TRY(KernelInfoGetAttribute_float(info, "epsilon", &k->norm.epsilon));
    const size_t width = k->dense.outputs;
    EXPECT(factor.count == width && gamma.count == width && beta.count == width,
           "factor, gamma and beta have to be as wide as the product");
    k->norm.factor = factor.data, k->norm.gamma = gamma.data, k->norm.beta = beta.data;
    return NULL;
}

/* Attention */

struct attention_kernel {
    const OrtApi *ort;
    const struct kernel *attend;
    OrtAllocator *allocator;
    size_t heads;
    struct rounding rounding;
};

static OrtStatus *attention_inputs(const OrtApi *ort, OrtKernelContext *context, struct attention *a) {
    struct tensor q, k, v, lengths;
    TRY(input(ort, context, 0, &q));
    TRY(input(ort, context, 1, &k));
    TRY(input(ort, context, 2, &v));
    TRY(input(ort, context, 3, &lengths));
    EXPECT(q.rank == 3 && k.rank == 3 && v.rank == 3, "queries, keys and values have to be [batch, tokens, hidden]");
    a->batch = (size_t)q.shape[0], a->queries = (size_t)q.shape[1], a->keys = (size_t)k.shape[1];
    a->head = (size_t)q.shape[2] / a->heads;
    EXPECT(q.shape[0] == k.shape[0] && q.shape[2] == k.shape[2] && !memcmp(k.shape, v.shape, 3 * sizeof *k.shape),
           "queries, keys and values differ in size");
    EXPECT(a->head && a->heads * a->head == (size_t)q.shape[2] && a->head % 16 == 0,
           "a head's width has to be a multiple of 16");
    EXPECT(lengths.count == a->batch, "there has to be one length for each text");
    a->q = q.data, a->k = k.data, a->v = v.data, a->lengths = lengths.data;
    for (size_t i = 0; i < a->batch; i++)
        EXPECT(a->lengths[i] >= 0 && a->lengths[i] <= k.shape[1],
               "a length (nonpad_kv_seqlen) is below 0 or beyond the padded length");
    return NULL;
}

static OrtStatus *attention_compute(void *kernel, OrtKernelContext *context) {
    const struct attention_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct attention a = {.heads = self->heads, .rounding = self->rounding};
    TRY(attention_inputs(ort, context, &a));
    const int64_t shape[3] = {(int64_t)a.batch, (int64_t)a.queries, (int64_t)(a.heads * a.head)};
    TRY(output(ort, context, 0, shape, 3, &a.y8));
    if (!a.batch || !a.queries) return NULL;
    void *scratch;
    TRY(AllocatorAlloc(self->allocator, attention_units(&a) * self->attend->scratch(&a) + 64, &scratch));
    a.scratch = (char *)(((uintptr_t)scratch + 63) / 64 * 64);
    const double products = 2.0 * (double)(a.batch * a.queries + 16) * (double)(a.keys * a.heads * a.head);
    OrtStatus *status = parallel_for(ort, context, self->attend, attention_units(&a), products, &a);
    OrtStatus *freed = AllocatorFree(self->allocator, scratch);
    if (status && freed) ReleaseStatus(freed);
    return status ? status : freed;
}

static OrtStatus *attention_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct attention_kernel *k = kernel;
    int64_t heads = 0;
    k->ort = ort;
    k->attend = self->level->kernels[ATTENTION];
    TRY(KernelInfoGetAttribute_int64(info, "num_heads", &heads));
    EXPECT(heads > 0, "num_heads has to be 1 or more");
    k->heads = (size_t)heads;
    TRY(rounding_of(ort, info, 4, &k->rounding));
    return KernelInfoGetAllocator(info, 0, &k->allocator);
}

static void attention_destroy(void *kernel) {
    const struct attention_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    if (self->allocator) ReleaseAllocator(self->allocator);
    free(kernel);
}

static const struct custom_op OPERATORS[] = {
    /* x, zero point, weight, scale, bias; then the operator's other operands, and the output's scale and zero point */
    CUSTOM_OP("Dense", "uuiff", "f", dense, dense_kernel, dense_destroy, IDENTITY, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGelu", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, GELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseGeluTanh", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, GELU_TANH, 1 << DENSE_INT8),
    CUSTOM_OP("DenseRelu", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, RELU, 1 << DENSE_INT8),
    CUSTOM_OP("DenseAddNorm", "uuifffffffu", "fu", dense_add_norm, dense_kernel, dense_destroy, IDENTITY,
              1 << DENSE_INT8 | 1 << NORM),
    /* queries, keys, values, lengths, scale and zero point of the output */
    CUSTOM_OP("Attention", "ffflfu", "u", attention, attention_kernel, attention_destroy, IDENTITY, 1 << ATTENTION),
};

const struct custom_ops CUSTOM_INT8 = {"fusedbert", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS};
