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
    return parallel_for(ort, context, self->normalize->unit, norm_units(&norm), self->normalize->cost * (double)x.count, &norm);
}

static OrtStatus *norm_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct norm_kernel *k = kernel;
    int64_t axis = 0;
    (void)self;
    k->ort = ort;
    k->normalize = choose_kernel(NORM_KERNELS);
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
    return parallel_for(ort, context, self->activate->unit, gelu_units(&gelu), self->activate->cost * (double)x.count, &gelu);
}

static OrtStatus *gelu_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct gelu_kernel *k = kernel;
    char approximate[8] = "none";
    size_t size = sizeof approximate;
    (void)self;
    k->ort = ort;
    k->activate = choose_kernel(GELU_KERNELS);
    OrtStatus *absent = KernelInfoGetAttribute_string(info, "approximate", approximate, &size);
    if (absent) ReleaseStatus(absent);
    k->kind = strcmp(approximate, "tanh") ? GELU : GELU_TANH;
    return NULL;
}

static const struct custom_op OPERATORS[] = {
    CUSTOM_OP("LayerNormalization", "fff", "f", norm, norm_kernel, free, IDENTITY),
    CUSTOM_OP("Gelu", "f", "f", gelu, gelu_kernel, free, IDENTITY),
};

/* Return the part of the operators that this processor can run: 0 none, 1 both. */
EXPORT int fusedbert_level(void) { return choose_kernel(NORM_KERNELS) && choose_kernel(GELU_KERNELS); }

/* Called by SessionOptions.register_custom_ops_library. The domain without a name is ONNX's. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static _Atomic(OrtCustomOpDomain *) domain;
    const OrtApi *ort = base->GetApi(ORT_VERSION);
    if (!ort || !fusedbert_level()) return NULL;
    return add_domain(ort, options, "", OPERATORS, sizeof OPERATORS / sizeof *OPERATORS, &domain);
}
