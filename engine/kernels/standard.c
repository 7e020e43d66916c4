/* Two operators of ONNX itself in float32, in place of ONNX Runtime's, which go number by number: LayerNormalization over the
 * last axis, and Gelu. For the graphs that fusedbert exports, which use them in no other form.
 */
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "norm.h"
#include "operator.h"
#include "simd.h"

enum { GELU_NUMBERS = 4096 };
static const double A_NUMBER = 0.5; /* nanoseconds that one costs, in either */

struct norm_kernel {
    const OrtApi *ort;
    float epsilon;
};

static OrtStatus *norm_compute(void *kernel, OrtKernelContext *context) {
    const struct norm_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct tensor x, gain, shift;
    struct add_norm norm = {.epsilon = self->epsilon};
    TRY(input(ort, context, 0, &x));
    TRY(input(ort, context, 1, &gain));
    TRY(input(ort, context, 2, &shift));
    EXPECT(x.rank >= 1 && x.shape[x.rank - 1] > 0, "there is nothing to normalize");
    norm.width = (size_t)x.shape[x.rank - 1];
    EXPECT(gain.count == norm.width && shift.count == norm.width, "gain and shift have to be as wide as the input");
    TRY(output(ort, context, 0, x.shape, x.rank, &norm.y));
    norm.x = x.data, norm.gain = gain.data, norm.shift = shift.data;
    norm.rows = x.count / norm.width;
    return spread(ort, context, add_norm_unit, add_norm_units(&norm), A_NUMBER * (double)x.count, &norm);
}

static OrtStatus *norm_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct norm_kernel *made = kernel;
    int64_t axis = 0;
    (void)self;
    made->ort = ort;
    TRY(KernelInfoGetAttribute_float(info, "epsilon", &made->epsilon));
    TRY(KernelInfoGetAttribute_int64(info, "axis", &axis));
    EXPECT(axis == -1, "LayerNormalization has to be over the last axis");
    return NULL;
}

struct gelu_kernel {
    const OrtApi *ort;
    enum activation kind;
};

struct gelu_units {
    const float *x;
    float *y;
    size_t count;
    enum activation kind;
};

static void gelu_unit(void *data, size_t unit) {
    const struct gelu_units *u = data;
    const size_t first = unit * GELU_NUMBERS, last = first + GELU_NUMBERS < u->count ? first + GELU_NUMBERS : u->count;
    for (size_t i = first; i < last; i += 16) {
        const __mmask16 some = lanes(last - i);
        const __m512 x = _mm512_maskz_loadu_ps(some, u->x + i);
        _mm512_mask_storeu_ps(u->y + i, some, u->kind == GELU ? exact_gelu_ps(x) : gelu_tanh_ps(x));
    }
}

static OrtStatus *gelu_compute(void *kernel, OrtKernelContext *context) {
    const struct gelu_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct gelu_units units = {.kind = self->kind};
    struct tensor x;
    TRY(input(ort, context, 0, &x));
    TRY(output(ort, context, 0, x.shape, x.rank, &units.y));
    units.x = x.data, units.count = x.count;
    return spread(ort, context, gelu_unit, (x.count + GELU_NUMBERS - 1) / GELU_NUMBERS, A_NUMBER * (double)x.count, &units);
}

static OrtStatus *gelu_make(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel) {
    struct gelu_kernel *made = kernel;
    char approximate[8] = "none";
    size_t size = sizeof approximate;
    (void)self;
    made->ort = ort;
    OrtStatus *absent = KernelInfoGetAttribute_string(info, "approximate", approximate, &size);
    if (absent) ReleaseStatus(absent);
    made->kind = strcmp(approximate, "tanh") ? GELU : GELU_TANH;
    return NULL;
}

static const struct operator NORM = OPERATOR("LayerNormalization", "fff", "f", norm, norm_kernel, free, IDENTITY);
static const struct operator ACTIVATION = OPERATOR("Gelu", "f", "f", gelu, gelu_kernel, free, IDENTITY);

/* What this processor can run: 0 nothing, 1 both operators. */
EXPORT int fusedbert_level(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* Called by SessionOptions.register_custom_ops_library. A domain without a name is ONNX's own. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *ort = base->GetApi(ORT_VERSION);
    if (!ort || !fusedbert_level()) return NULL;
    static OrtCustomOpDomain *domain;
    if (!domain) {
        OrtCustomOpDomain *made;
        TRY(CreateCustomOpDomain("", &made));
        TRY(CustomOpDomain_Add(made, &NORM.op));
        TRY(CustomOpDomain_Add(made, &ACTIVATION.op));
        domain = made;
    }
    return AddCustomOpDomain(options, domain);
}
