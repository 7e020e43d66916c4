/* What the operators of the encoder have in common in int8 and bfloat16: their shapes, and the run of a product and of attention. */
#ifndef FUSEDBERT_ENCODER_H
#define FUSEDBERT_ENCODER_H

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "custom_op.h"

/* A product, with what may follow it. */
struct dense_kernel {
    const OrtApi *ort;
    const struct kernel *gemm, *normalize;
    int narrow;         /* whether the result is in eight bits, or in bfloat16; else in float32 */
    size_t bias;        /* place of the bias among the inputs */
    struct dense dense; /* without the inputs of a run */
    struct norm norm;   /* of DenseAddNorm and DenseAddPreNorm, likewise */
    size_t positions;   /* of DenseRope's tables */
};

/* Ask for pages of 2 MiB under a large weight: with pages of 4 KiB a run of BERT-base looks up tens of thousands of them, and a
 * single text waits for that. MADV_COLLAPSE moves the present content (Linux 6.1); a refusal changes nothing. */
static inline void advise_huge_pages(const void *data, size_t bytes) {
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

/* Read weights in panels, and the bias if there is one, for a product of so many outputs. */
static inline OrtStatus *dense_weights(const OrtApi *ort, const OrtKernelInfo *info, struct dense_kernel *k, size_t weight_at,
                                       size_t takes) {
    struct tensor weight, bias;
    struct dense *d = &k->dense;
    TRY(constant(ort, info, weight_at, &weight));
    TRY(optional_constant(ort, info, k->bias, &bias));
    EXPECT(weight.rank == 4 && weight.shape[2] == PANEL && (size_t)weight.shape[3] == takes,
           takes == 4 ? "weights have to be [panels, inputs / 4, 32, 4]" : "weights have to be [panels, inputs / 2, 32, 2]");
    d->weight = weight.data, d->bias = bias.data;
    d->inputs = takes * (size_t)weight.shape[1];
    EXPECT(d->inputs && d->outputs, "a product has to have inputs and outputs");
    EXPECT((size_t)weight.shape[0] == dense_panels(d) && (!bias.data || bias.count == d->outputs),
           "panels, scales and biases have to have the same number of outputs");
    advise_huge_pages(d->weight, weight.count * (takes == 4 ? 1 : 2));
    return NULL;
}

/* Read the parameters of a normalization of such a width: gamma, beta and epsilon. */
static inline OrtStatus *norm_weights(const OrtApi *ort, const OrtKernelInfo *info, struct norm *norm, size_t width, size_t first) {
    struct tensor gamma, beta;
    TRY(constant(ort, info, first, &gamma));
    TRY(constant(ort, info, first + 1, &beta));
    TRY(KernelInfoGetAttribute_float(info, "epsilon", &norm->epsilon));
    EXPECT(gamma.count == width && beta.count == width, "factor, gamma and beta have to be as wide as the product");
    norm->gamma = gamma.data, norm->beta = beta.data;
    return NULL;
}

static inline OrtStatus *dense_run(const struct dense_kernel *k, OrtKernelContext *context, struct dense *d) {
    enum { WEIGHT_ROWS = 14 }; /* reading the weights costs about as much as this many rows */
    const double products = (double)(d->rows + WEIGHT_ROWS) * (double)(d->inputs * d->outputs);
    return parallel_for(k->ort, context, k->gemm, dense_units(d), products, d);
}

/* A product that ends in a gated unit, given its weights. */
static inline OrtStatus *gated(const OrtApi *ort, struct dense *d) {
    EXPECT(d->outputs % PANEL == 0, "a gated product has to have whole panels of 16 neurons");
    d->ending = GATED;
    return NULL;
}

/* A product that ends in RoPE: read its tables, of which the first is the operator's so many'th input. */
static inline OrtStatus *rope_tables(const OrtApi *ort, const OrtKernelInfo *info, struct dense_kernel *k, size_t first) {
    struct tensor cos, sin;
    struct dense *d = &k->dense;
    TRY(constant(ort, info, first, &cos));
    TRY(constant(ort, info, first + 1, &sin));
    EXPECT(cos.rank == 2 && sin.rank == 2 && !memcmp(cos.shape, sin.shape, 2 * sizeof *cos.shape),
           "cos and sin have to be [positions, head / 2] both");
    d->ending = TURNED, d->cos = cos.data, d->sin = sin.data;
    d->head = 2 * (size_t)cos.shape[1], k->positions = (size_t)cos.shape[0];
    EXPECT(d->head && d->head % PANEL == 0 && d->outputs % d->head == 0,
           "RoPE takes heads of a multiple of 32, as many as fill the product's outputs");
    return NULL;
}

/* Get x, and turn its shape into that of the output. */
static inline OrtStatus *dense_input(const struct dense_kernel *k, OrtKernelContext *context, struct dense *d, struct tensor *x) {
    const OrtApi *ort = k->ort;
    const OrtValue *bias = NULL;
    TRY(input(ort, context, 0, x));
    EXPECT(x->rank >= 2 && (size_t)x->shape[x->rank - 1] == d->inputs, "the input of a product is not as wide as its weights");
    if (!d->bias) TRY(KernelContext_GetInput(context, k->bias, &bias));
    EXPECT(!bias, "a bias has to be a constant of the model");
    d->x = x->data;
    d->rows = x->count / d->inputs;
    if (d->ending == TURNED) {
        EXPECT(x->rank == 3, "RoPE takes [texts, tokens, inputs]");
        EXPECT((size_t)x->shape[1] <= k->positions, "a text is longer than RoPE's table of positions");
        d->tokens = (size_t)x->shape[1];
    }
    x->shape[x->rank - 1] = (int64_t)(d->ending == GATED ? d->outputs / 2 : d->outputs);
    return NULL;
}

static inline OrtStatus *dense_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct tensor x;
    void *y;
    TRY(dense_input(self, context, &d, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &y));
    if (!self->narrow) d.y = y;
    else if (d.scale) d.y8 = y;
    else d.y16 = y;
    return dense_run(self, context, &d);
}

/* The residual follows the bias, and in int8 its factor comes next. */
static inline OrtStatus *dense_add_norm_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct norm norm = self->norm;
    struct tensor x, residual;
    const OrtValue *factor = NULL;
    TRY(dense_input(self, context, &d, &x));
    TRY(input(ort, context, self->bias + 1, &residual));
    if (d.scale && !norm.factor) TRY(KernelContext_GetInput(context, self->bias + 2, &factor));
    EXPECT(!factor, "a factor has to be a constant of the model");
    EXPECT(residual.count == d.rows * d.outputs, "the residual does not have the size of the product");
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y));
    TRY(output(ort, context, 1, x.shape, x.rank, d.scale ? (void *)&norm.y8 : (void *)&norm.y16));
    TRY(dense_run(self, context, &d));
    norm.x = norm.y = d.y, norm.residual = residual.data, norm.width = d.outputs, norm.rows = d.rows;
    return parallel_for(ort, context, self->normalize, norm_units(&norm), (double)(d.rows * d.outputs), &norm);
}

static inline void dense_destroy(void *kernel) {
    const struct dense_kernel *self = kernel;
    free((void *)self->dense.offset);
    free(kernel);
}

struct attention_kernel {
    const OrtApi *ort;
    const struct kernel *attend;
    OrtAllocator *allocator;
    struct attention attention; /* without the inputs of a run */
};

static inline OrtStatus *attention_inputs(const OrtApi *ort, OrtKernelContext *context, struct attention *a) {
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
    EXPECT(!a->window || a->queries == a->keys, "attention with a window takes as many queries as keys");
    a->q = q.data, a->k = k.data, a->v = v.data, a->lengths = lengths.data;
    for (size_t i = 0; i < a->batch; i++)
        EXPECT(a->lengths[i] >= 0 && a->lengths[i] <= k.shape[1],
               "a length (nonpad_kv_seqlen) is below 0 or beyond the padded length");
    return NULL;
}

/* Allocate a result like the queries, and scratch memory of so many bytes for each slot. */
static inline OrtStatus *attention_memory(const struct attention_kernel *self, OrtKernelContext *context, struct attention *a,
                                          size_t slots, void **scratch) {
    const OrtApi *ort = self->ort;
    const int64_t shape[3] = {(int64_t)a->batch, (int64_t)a->queries, (int64_t)(a->heads * a->head)};
    *scratch = NULL;
    TRY(output(ort, context, 0, shape, 3, a->format == BFLOAT16 ? (void *)&a->y16 : (void *)&a->y8));
    if (!a->batch || !a->queries) return NULL;
    TRY(AllocatorAlloc(self->allocator, slots * self->attend->scratch(a) + 64, scratch));
    a->scratch = (char *)(((uintptr_t)*scratch + 63) / 64 * 64);
    return NULL;
}

/* Run attention whose struct begins with a, at so many times the cost of plain attention, and give back the scratch memory. */
static inline OrtStatus *attention_run(const struct attention_kernel *self, OrtKernelContext *context, struct attention *a,
                                       double times, void *scratch) {
    const OrtApi *ort = self->ort;
    const size_t seen = a->window && 2 * a->window < a->keys ? 2 * a->window : a->keys;
    const double products = 2.0 * times * (double)(a->batch * a->queries + 16) * (double)(seen * a->heads * a->head);
    OrtStatus *status = parallel_for(ort, context, self->attend, attention_units(a), products, a);
    OrtStatus *freed = AllocatorFree(self->allocator, scratch);
    if (status && freed) ReleaseStatus(freed);
    return status ? status : freed;
}

static inline OrtStatus *attention_compute(void *kernel, OrtKernelContext *context) {
    const struct attention_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct attention a = self->attention;
    void *scratch;
    TRY(attention_inputs(ort, context, &a));
    TRY(attention_memory(self, context, &a, attention_units(&a), &scratch));
    return scratch ? attention_run(self, context, &a, 1, scratch) : NULL;
}

static inline OrtStatus *attention_start(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                         struct attention_kernel *k) {
    int64_t heads = 0;
    k->ort = ort;
    k->attend = self->level->kernels[ATTENTION];
    TRY(KernelInfoGetAttribute_int64(info, "num_heads", &heads));
    EXPECT(heads > 0, "num_heads has to be 1 or more");
    k->attention.heads = (size_t)heads;
    return KernelInfoGetAllocator(info, 0, &k->allocator);
}

/* Read the window: the most places between a query and a key that it sees. */
static inline OrtStatus *window_of(const OrtApi *ort, const OrtKernelInfo *info, struct attention_kernel *k) {
    enum { ALL = 1 << 30 }; /* no text is longer */
    int64_t window = 0;
    TRY(KernelInfoGetAttribute_int64(info, "window", &window));
    EXPECT(window > 0, "window has to be 1 or more");
    k->attention.window = window < ALL ? (size_t)window : ALL;
    return NULL;
}

static inline void attention_destroy(void *kernel) {
    const struct attention_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    if (self->allocator) ReleaseAllocator(self->allocator);
    free(kernel);
}

#endif
