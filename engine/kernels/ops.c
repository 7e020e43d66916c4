/* The operators of the domain "fusedbert", registered with an ONNX Runtime session.
 *
 *   Dense          y  = x W + b
 *   DenseGelu      y8 = gelu(x W + b), and so DenseGeluTanh, DenseRelu
 *   DenseAddNorm   y  = norm(x W + b + factor residual), and y8
 *   Attention      y8 = softmax(q k^T) v for each head, side by side
 *
 * x and y8 are eight bits, unsigned; the rest is float32. A model that uses an operator brings a function of the same name
 * with it, in standard operators: where this library is not registered, or leaves an operator out because the processor
 * lacks its instructions, ONNX Runtime runs the function.
 */
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "attention.h"
#include "dense.h"
#include "norm.h"
#include "operator.h"

enum { ROWS_AT_ONCE = 512 };
/* What things cost, roughly, in nanoseconds of one thread. */
static const double PRODUCT = 1 / 230.0, PRODUCT_BF16 = 1 / 60.0, NORMALIZED = 0.5;

static OrtStatus *rounding_of(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct rounding *rounding) {
    struct tensor scale, zero_point;
    TRY(constant(ort, info, index, &scale));
    TRY(constant(ort, info, index + 1, &zero_point));
    EXPECT(scale.count == 1 && zero_point.count == 1, "the scale and zero point of an output have to be one number each");
    rounding->inverse_scale = 1.0f / *(const float *)scale.data;
    rounding->zero_point = *(const uint8_t *)zero_point.data;
    return NULL;
}

/* Products */

struct dense_kernel {
    const OrtApi *ort;
    struct dense dense;   /* all but what a run brings */
    struct add_norm norm; /* of DenseAddNorm, the same */
};

/* Ask for pages of 2 MiB under a large weight: with pages of 4 KiB a run of BERT-base looks tens of thousands of them up, and a
 * single text waits for that. MADV_COLLAPSE moves what is there (Linux 6.1); where there are none to have, nothing changes. */
static void on_huge_pages(const void *data, size_t bytes) {
#ifdef __linux__
    enum { PAGE = 2 << 20, LARGE = 1 << 20, HUGEPAGE = 14, COLLAPSE = 25 };
    if (bytes < LARGE) return;
    const uintptr_t start = (uintptr_t)data / PAGE * PAGE, end = ((uintptr_t)data + bytes + PAGE - 1) / PAGE * PAGE;
    madvise((void *)start, end - start, HUGEPAGE);
    madvise((void *)start, end - start, COLLAPSE);
#else
    (void)data, (void)bytes;
#endif
}

static OrtStatus *dense_weights(const OrtApi *ort, const OrtKernelInfo *info, struct dense *d) {
    struct tensor zero_point, weight, scale, bias;
    TRY(constant(ort, info, 1, &zero_point));
    TRY(constant(ort, info, 2, &weight));
    TRY(constant(ort, info, 3, &scale));
    TRY(constant(ort, info, 4, &bias));
    d->weight = weight.data, d->scale = scale.data, d->bias = bias.data;
    d->outputs = bias.count;
    EXPECT(zero_point.count == 1, "the zero point of an input has to be one number");
    EXPECT(weight.rank == 4 && weight.shape[2] == PANEL && weight.shape[3] == 4, "weights have to be [panels, inputs / 4, 32, 4]");
    EXPECT((size_t)weight.shape[0] == dense_panels(d) && scale.count == d->outputs, "panels, scales and biases have to be of one size");
    d->inputs = 4 * (size_t)weight.shape[1];
    EXPECT(d->inputs && d->outputs, "a product has to have inputs and outputs");
    on_huge_pages(d->weight, weight.count);
    int32_t *offset = malloc(sizeof(int32_t) * PANEL * (dense_panels(d) + 1));
    if (!offset) return CreateStatus(ORT_FAIL, "out of memory");
    d->offset = offset;
    dense_offsets(d, *(const uint8_t *)zero_point.data, offset);
    return NULL;
}

static void dense_unit(void *data, size_t i) {
    const struct dense *d = data;
    const size_t panels = dense_panels(d), first = i / panels * ROWS_AT_ONCE;
    const size_t last = first + ROWS_AT_ONCE < d->rows ? first + ROWS_AT_ONCE : d->rows;
    dense_panel(d, i % panels, first, last);
}

static OrtStatus *dense_run(const OrtApi *ort, OrtKernelContext *context, struct dense *d) {
    const size_t units = dense_panels(d) * ((d->rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE);
    const double work = PRODUCT * (double)(d->rows + ROWS) * (double)(d->inputs * d->outputs); /* the weights are read, too */
    return spread(ort, context, dense_unit, units, work, d);
}

/* Take x, and name the shape of what comes out. */
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
    return dense_run(ort, context, &d);
}

static OrtStatus *dense_activation_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct tensor x;
    TRY(dense_input(ort, context, &d, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y8));
    return dense_run(ort, context, &d);
}

static OrtStatus *dense_add_norm_compute(void *kernel, OrtKernelContext *context) {
    const struct dense_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct dense d = self->dense;
    struct add_norm norm = self->norm;
    struct tensor x, residual;
    TRY(dense_input(ort, context, &d, &x));
    TRY(input(ort, context, 5, &residual));
    EXPECT(residual.count == d.rows * d.outputs, "the residual has not the size of the product");
    TRY(output(ort, context, 0, x.shape, x.rank, &d.y));
    TRY(output(ort, context, 1, x.shape, x.rank, &norm.y8));
    TRY(dense_run(ort, context, &d));
    norm.x = norm.y = d.y, norm.residual = residual.data, norm.width = d.outputs, norm.rows = d.rows;
    return spread(ort, context, add_norm_unit, add_norm_units(&norm), NORMALIZED * (double)(d.rows * d.outputs), &norm);
}

static OrtStatus *dense_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct dense_kernel *made = kernel;
    made->ort = ort;
    made->dense.activation = self->activation;
    return dense_weights(ort, info, &made->dense);
}

static void dense_destroy(void *kernel) {
    const struct dense_kernel *self = kernel;
    free((void *)self->dense.offset);
    free(kernel);
}

static OrtStatus *dense_activation_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct dense_kernel *made = kernel;
    TRY(dense_make(self, ort, info, kernel));
    return rounding_of(ort, info, 5, &made->dense.rounding);
}

static OrtStatus *dense_add_norm_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct dense_kernel *made = kernel;
    struct tensor factor, gain, shift;
    TRY(dense_make(self, ort, info, kernel));
    TRY(constant(ort, info, 6, &factor));
    TRY(constant(ort, info, 7, &gain));
    TRY(constant(ort, info, 8, &shift));
    TRY(rounding_of(ort, info, 9, &made->norm.rounding));
    TRY(KernelInfoGetAttribute_float(info, "epsilon", &made->norm.epsilon));
    const size_t width = made->dense.outputs;
    EXPECT(factor.count == width && gain.count == width && shift.count == width, "factor, gain and shift have to be as wide as the product");
    made->norm.factor = factor.data, made->norm.gain = gain.data, made->norm.shift = shift.data;
    return NULL;
}

/* Attention */

struct attention_kernel {
    const OrtApi *ort;
    OrtAllocator *allocator;
    size_t heads;
    struct rounding rounding;
};

static void attention_unit(void *data, size_t i) {
    const struct attention *a = data;
    attention_head(a, i / a->heads, i % a->heads);
}

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
    EXPECT(a->head && a->heads * a->head == (size_t)q.shape[2] && a->head % 16 == 0, "a head's width has to be a multiple of 16");
    EXPECT(lengths.count == a->batch, "there has to be one length for each text");
    a->q = q.data, a->k = k.data, a->v = v.data, a->lengths = lengths.data;
    for (size_t i = 0; i < a->batch; i++)
        EXPECT(a->lengths[i] >= 0 && a->lengths[i] <= k.shape[1], "a length (nonpad_kv_seqlen) is below 0 or beyond the padded length");
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
    TRY(AllocatorAlloc(self->allocator, a.batch * a.heads * attention_scratch(&a) + 64, &scratch));
    a.scratch = (char *)(((uintptr_t)scratch + 63) / 64 * 64);
    const double work = PRODUCT_BF16 * 2.0 * (double)(a.batch * a.queries + 16) * (double)(a.keys * a.heads * a.head);
    OrtStatus *status = spread(ort, context, attention_unit, a.batch * a.heads, work, &a);
    OrtStatus *freed = AllocatorFree(self->allocator, scratch);
    if (status && freed) ReleaseStatus(freed);
    return status ? status : freed;
}

static OrtStatus *attention_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct attention_kernel *made = kernel;
    int64_t heads = 0;
    (void)self;
    made->ort = ort;
    TRY(KernelInfoGetAttribute_int64(info, "num_heads", &heads));
    EXPECT(heads > 0, "num_heads has to be 1 or more");
    made->heads = (size_t)heads;
    TRY(rounding_of(ort, info, 4, &made->rounding));
    return KernelInfoGetAllocator(info, 0, &made->allocator);
}

static void attention_destroy(void *kernel) {
    const struct attention_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    if (self->allocator) ReleaseAllocator(self->allocator);
    free(kernel);
}

/* The library */

/* x, zero point, weight, scale, bias; then what the rest needs, up to the scale and zero point of what comes out. */
static const struct operator PRODUCTS[] = {
    OPERATOR("Dense", "uuiff", "f", dense, dense_kernel, dense_destroy, IDENTITY),
    OPERATOR("DenseGelu", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, GELU),
    OPERATOR("DenseGeluTanh", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, GELU_TANH),
    OPERATOR("DenseRelu", "uuifffu", "u", dense_activation, dense_kernel, dense_destroy, RELU),
    OPERATOR("DenseAddNorm", "uuifffffffu", "fu", dense_add_norm, dense_kernel, dense_destroy, IDENTITY),
};
/* queries, keys, values, lengths, scale and zero point. */
static const struct operator ATTENTION = OPERATOR("Attention", "ffflfu", "u", attention, attention_kernel, attention_destroy, IDENTITY);

/* Processors with AMX multiply eight bits many times faster in tiles, and ONNX Runtime's own kernels do, where the system lets
 * them: XCR0 then has the bits of both parts of the tiles' state (Intel's manual, volume 1, 13.3). */
static int has_amx(void) {
    unsigned a, b, c, d, low = 0, high = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 25 & 1)) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* xgetbv is there */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3) == 3;
}
static int has_products(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}
static int has_attention(void) { return has_products() && __builtin_cpu_supports("avx512bf16"); }

/* A test lowers this, to see what a lesser processor would do. */
EXPORT int fusedbert_at_most = 2;

/* What this processor can run: 0 nothing, 1 the products, 2 attention too; -1 nothing, because what it has is better. */
EXPORT int fusedbert_level(void) {
    __builtin_cpu_init();
    if (has_amx()) return -1;
    const int level = has_products() + has_attention();
    return level < fusedbert_at_most ? level : fusedbert_at_most;
}

/* Called by SessionOptions.register_custom_ops_library. The domain lives as long as the process: sessions refer to it. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const int level = fusedbert_level();
    const OrtApi *ort = base->GetApi(ORT_VERSION);
    if (!ort || level < 1) return NULL; /* the functions run */
    static OrtCustomOpDomain *domain;
    if (!domain) {
        OrtCustomOpDomain *made;
        TRY(CreateCustomOpDomain("fusedbert", &made));
        for (size_t i = 0; i < sizeof PRODUCTS / sizeof *PRODUCTS; i++) TRY(CustomOpDomain_Add(made, &PRODUCTS[i].op));
        if (level > 1) TRY(CustomOpDomain_Add(made, &ATTENTION.op));
        domain = made;
    }
    return AddCustomOpDomain(options, domain);
}
