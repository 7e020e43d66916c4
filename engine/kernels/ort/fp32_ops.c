/* Two operators of ONNX in float32 that ONNX Runtime computes number by number: LayerNormalization over the last axis, and
 * Gelu. For graphs that fusedbert exports, which use no other form of them.
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

static const struct custom_op OPERATORS[] = {
    CUSTOM_OP("LayerNormalization", "fff", "f", norm, norm_kernel, free, IDENTITY, 1 << NORM),
    CUSTOM_OP("Gelu", "f", "f", gelu, gelu_kernel, free, IDENTITY, 1 << GELU_ALONE),
};

/* The domain without a name is ONNX's. */
const struct custom_ops CUSTOM_FP32 = {"", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS};
