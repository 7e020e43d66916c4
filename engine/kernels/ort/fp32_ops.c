/* Three operators of ONNX in float32: LayerNormalization over the last axis and Gelu, which ONNX Runtime computes number by number,
 * and Gemm, which it computes slowly for few rows. For graphs that fusedbert exports, which use no other form of the first two.
 */
#include "custom_op.h"

struct norm_kernel {
    const OrtApi *ort;
    const struct kernel *normalize;
    float epsilon;
};

static OrtStatus *norm_compute(void *kernel, OrtKernelContext *context) {
    const struct norm_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct tensor x, gamma, beta;
    struct norm norm = {.epsilon = self->epsilon};
    TRY(input(ort, context, 0, &x));
    TRY(input(ort, context, 1, &gamma));
    TRY(input(ort, context, 2, &beta));
    EXPECT(x.rank >= 1 && x.shape[x.rank - 1] > 0, "there is nothing to normalize");
    norm.width = (size_t)x.shape[x.rank - 1];
    EXPECT(gamma.count == norm.width && beta.count == norm.width, "gamma and beta have to be as wide as the input");
    TRY(output(ort, context, 0, x.shape, x.rank, &norm.y));
    norm.x = x.data, norm.gamma = gamma.data, norm.beta = beta.data;
    norm.rows = x.count / norm.width;
    return parallel_for(ort, context, self->normalize, norm_units(&norm), (double)x.count, &norm);
}

static OrtStatus *norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct norm_kernel *k = kernel;
    int64_t axis = 0;
    k->ort = ort;
    k->normalize = self->level->kernels[NORM];
    TRY(KernelInfoGetAttribute_float(info, "epsilon", &k->epsilon));
    TRY(KernelInfoGetAttribute_int64(info, "axis", &axis));
    EXPECT(axis == -1, "LayerNormalization has to be over the last axis");
    return NULL;
}

struct gelu_kernel {
    const OrtApi *ort;
    const struct kernel *activate;
    enum activation kind;
};

static OrtStatus *gelu_compute(void *kernel, OrtKernelContext *context) {
    const struct gelu_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct gelu gelu = {.kind = self->kind};
    struct tensor x;
    TRY(input(ort, context, 0, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &gelu.y));
    gelu.x = x.data, gelu.count = x.count;
    return parallel_for(ort, context, self->activate, gelu_units(&gelu), (double)x.count, &gelu);
}

static OrtStatus *gelu_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct gelu_kernel *k = kernel;
    char approximate[8] = "none";
    size_t size = sizeof approximate;
    k->ort = ort;
    k->activate = self->level->kernels[GELU_ALONE];
    OrtStatus *absent = KernelInfoGetAttribute_string(info, "approximate", approximate, &size);
    if (absent) ReleaseStatus(absent);
    k->kind = strcmp(approximate, "tanh") ? GELU : GELU_TANH;
    return NULL;
}

struct gemm_kernel {
    const OrtApi *ort;
    const struct kernel *multiply;
    int64_t a_turned, b_turned; /* transA, transB */
    float alpha, beta;
};

/* Gemm by its definition, for the forms that the kernel does not know, which no graph of fusedbert's has: d has the sizes and y. */
static void plain_gemm(const struct gemm_kernel *k, const struct dense *d, const struct tensor *c) {
    const float *a = d->x, *b = d->weight, *bias = c->data;
    const size_t a_row = k->a_turned ? 1 : d->inputs, a_step = k->a_turned ? d->rows : 1;
    const size_t b_step = k->b_turned ? 1 : d->outputs, b_column = k->b_turned ? d->inputs : 1;
    const size_t c_columns = c->rank ? (size_t)c->shape[c->rank - 1] : 1;
    const size_t c_row = c->count > c_columns ? c_columns : 0, c_column = c_columns > 1;
    for (size_t i = 0; i < d->rows; i++)
        for (size_t j = 0; j < d->outputs; j++) {
            double sum = 0;
            for (size_t s = 0; s < d->inputs; s++) sum += (double)a[i * a_row + s * a_step] * b[s * b_step + j * b_column];
            d->y[i * d->outputs + j] = (float)(k->alpha * sum + (bias ? k->beta * bias[i * c_row + j * c_column] : 0));
        }
}

/* Whether c can be added to [rows, outputs]: each of its axes, from the last one on, is as long or 1. */
static int spreads(const struct tensor *c, size_t rows, size_t outputs) {
    const int64_t sizes[2] = {(int64_t)outputs, (int64_t)rows};
    for (size_t i = 0; i < c->rank; i++)
        if (i > 1 || (c->shape[c->rank - 1 - i] != sizes[i] && c->shape[c->rank - 1 - i] != 1)) return 0;
    return 1;
}

static OrtStatus *gemm_compute(void *kernel, OrtKernelContext *context) {
    enum { WEIGHT_ROWS = 14 }; /* reading the weights costs about as much as this many rows */
    const struct gemm_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct tensor a, b, c = {0};
    const OrtValue *bias;
    struct dense d = {.activation = IDENTITY};
    TRY(input(ort, context, 0, &a));
    TRY(input(ort, context, 1, &b));
    TRY(KernelContext_GetInput(context, 2, &bias));
    if (bias) TRY(describe(ort, bias, &c));
    EXPECT(a.rank == 2 && b.rank == 2, "Gemm's matrices have to have two axes");
    d.rows = (size_t)a.shape[self->a_turned], d.inputs = (size_t)a.shape[!self->a_turned];
    d.outputs = (size_t)b.shape[!self->b_turned];
    EXPECT(b.shape[self->b_turned] == (int64_t)d.inputs, "Gemm's matrices do not fit each other");
    EXPECT(!bias || spreads(&c, d.rows, d.outputs), "Gemm's third input does not fit its result");
    const int64_t shape[2] = {(int64_t)d.rows, (int64_t)d.outputs};
    TRY(output(ort, context, 0, shape, 2, &d.y));
    d.x = a.data, d.weight = b.data, d.bias = c.data;
    const int usual = !self->a_turned && !self->b_turned && self->alpha == 1 && self->beta == 1 && d.inputs;
    if (!usual || (bias && (c.count != d.outputs || c.shape[c.rank - 1] != shape[1]))) return plain_gemm(self, &d, &c), NULL;
    const double products = (double)(d.rows + WEIGHT_ROWS) * (double)(d.inputs * d.outputs);
    return parallel_for(ort, context, self->multiply, strip_units(&d), products, &d);
}

/* Turn an attribute that is left out, which leaves the number as it is, into no error. */
static void or_default(const OrtApi *ort, OrtStatus *absent) {
    if (absent) ReleaseStatus(absent);
}

static OrtStatus *gemm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct gemm_kernel *k = kernel;
    k->ort = ort;
    k->multiply = self->level->kernels[DENSE_FP32];
    k->alpha = k->beta = 1;
    or_default(ort, KernelInfoGetAttribute_float(info, "alpha", &k->alpha));
    or_default(ort, KernelInfoGetAttribute_float(info, "beta", &k->beta));
    or_default(ort, KernelInfoGetAttribute_int64(info, "transA", &k->a_turned));
    or_default(ort, KernelInfoGetAttribute_int64(info, "transB", &k->b_turned));
    k->a_turned = k->a_turned != 0, k->b_turned = k->b_turned != 0;
    return NULL;
}

static const struct custom_op OPERATORS[] = {
    CUSTOM_OP("Gemm", "ffF", "f", gemm, gemm_kernel, free, IDENTITY, 1 << DENSE_FP32),
    CUSTOM_OP("LayerNormalization", "fff", "f", norm, norm_kernel, free, IDENTITY, 1 << NORM),
    CUSTOM_OP("Gelu", "f", "f", gelu, gelu_kernel, free, IDENTITY, 1 << GELU_ALONE),
};

/* The domain without a name is ONNX's. */
const struct custom_ops CUSTOM_FP32 = {"", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS};
