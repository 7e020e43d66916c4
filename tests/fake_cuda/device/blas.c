/* cuBLAS: matrix products in float16 and float32. Other calls fail and are reported. */
#include <stdlib.h>

#include "numeric.h"
#include "../runtime/fake_cuda.h"

enum { SUCCESS = 0, NOT_INITIALIZED = 1, FAILED = 13, UNSUPPORTED = 15 };
enum { TYPE_FLOAT = 0, TYPE_HALF = 2 };                 /* cudaDataType */
enum { IN_HALF = 64, IN_HALF_PEDANTIC = 65 };           /* cublasComputeType: alpha and beta are float16 with these */

struct handle { void *stream; int mode; };

API int cublasCreate_v2(struct handle **h) {
    if (fake_cuda_forbidden("cublasCreate")) return FAILED; /* it allocates */
    if (fake_cuda_ready()) return NOT_INITIALIZED;
    *h = calloc(1, sizeof **h);
    return SUCCESS;
}
API int cublasDestroy_v2(struct handle *h) { return free(h), SUCCESS; }
API int cublasSetStream_v2(struct handle *h, void *stream) { return h->stream = stream, SUCCESS; }
API int cublasSetMathMode(struct handle *h, int mode) { return h->mode = mode, SUCCESS; }
API int cublasGetMathMode(struct handle *h, int *mode) { return *mode = h->mode, SUCCESS; }

static const struct { int status; const char *name; } statuses[] = {
    {SUCCESS, "CUBLAS_STATUS_SUCCESS"},         {NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED"},
    {FAILED, "CUBLAS_STATUS_EXECUTION_FAILED"}, {UNSUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED"},
};
API const char *cublasGetStatusName(int status) {
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) if (statuses[i].status == status) return statuses[i].name;
    return "CUBLAS_STATUS_UNKNOWN";
}
API const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }

/* ---- products ---- */
struct batch {
    struct product p;
    size_t count;
    long long a_stride, b_stride, c_stride; /* in elements */
    const char *call;
};

static size_t extent(const struct matrix *x, size_t rows, size_t columns) { /* bytes from the first element to the last */
    const size_t lines = x->transposed ? rows : columns, line = x->transposed ? columns : rows;
    return lines && line ? ((lines - 1) * x->step + line) * (x->half ? 2 : 4) : 0;
}

static void *moved(const struct matrix *x, long long by) { return (char *)x->at + by * (x->half ? 2 : 4); }

static void run(void *payload) {
    const struct batch *b = payload;
    for (size_t i = 0; i < b->count; i++) {
        struct product p = b->p;
        p.a.at = moved(&p.a, b->a_stride * (long long)i);
        p.b.at = moved(&p.b, b->b_stride * (long long)i);
        p.c.at = moved(&p.c, b->c_stride * (long long)i);
        if (!fake_cuda_holds(p.a.at, extent(&p.a, p.m, p.k)) || !fake_cuda_holds(p.b.at, extent(&p.b, p.k, p.n)) ||
            !fake_cuda_holds(p.c.at, extent(&p.c, p.m, p.n))) {
            fake_cuda_alarm("FAULT %s %zux%zux%zu reaches outside the device's memory", b->call, p.m, p.n, p.k);
            fake_cuda_fail(ILLEGAL_ADDRESS);
            return;
        }
        multiply(&p);
    }
}

/* A matrix in a call; step: from one column to the next, stride: from one product of a batch to the next. */
struct operand { const void *at; int type, step; long long stride; };

static int product(struct handle *h, const char *call, int turn_a, int turn_b, int m, int n, int k, float alpha, float beta,
                   struct operand a, struct operand b, struct operand c, int count) {
    if (count == 1) fake_cuda_trace("GEMM %s %dx%dx%d%s", call, m, n, k, fake_cuda_suffix(h->stream));
    else fake_cuda_trace("GEMM %s %dx%dx%d times %d%s", call, m, n, k, count, fake_cuda_suffix(h->stream));
    if (!fake_cuda_settings()->compute) return SUCCESS;
    const int types[3] = {a.type, b.type, c.type};
    for (int i = 0; i < 3; i++) {
        if (types[i] == TYPE_FLOAT || types[i] == TYPE_HALF) continue;
        fake_cuda_alarm("UNKNOWN type %d in %s", types[i], call);
        return UNSUPPORTED;
    }
    const struct batch all = {
        .p = {
            .a = {(void *)a.at, a.type == TYPE_HALF, turn_a != 0, (size_t)a.step},
            .b = {(void *)b.at, b.type == TYPE_HALF, turn_b != 0, (size_t)b.step},
            .c = {(void *)c.at, c.type == TYPE_HALF, 0, (size_t)c.step},
            .m = (size_t)m, .n = (size_t)n, .k = (size_t)k,
            .alpha = fake_cuda_settings()->wrong ? 1.05f * alpha : alpha, .beta = beta,
        },
        .count = (size_t)count, .a_stride = a.stride, .b_stride = b.stride, .c_stride = c.stride, .call = call,
    };
    return fake_cuda_enqueue(h->stream, run, &all, sizeof all) ? FAILED : SUCCESS;
}

static float factor(const void *at, int compute_type) {
    return compute_type == IN_HALF || compute_type == IN_HALF_PEDANTIC ? from_half(*(const half *)at) : *(const float *)at;
}

API int cublasGemmEx(struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,
                     int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                     int compute_type, int algorithm) {
    (void)algorithm;
    return product(h, "cublasGemmEx", ta, tb, m, n, k, factor(alpha, compute_type), factor(beta, compute_type),
                   (struct operand){a, a_type, lda, 0}, (struct operand){b, b_type, ldb, 0},
                   (struct operand){c, c_type, ldc, 0}, 1);
}

API int cublasGemmStridedBatchedEx(struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                                   int a_type, int lda, long long a_stride, const void *b, int b_type, int ldb,
                                   long long b_stride, const void *beta, void *c, int c_type, int ldc, long long c_stride,
                                   int count, int compute_type, int algorithm) {
    (void)algorithm;
    return product(h, "cublasGemmStridedBatchedEx", ta, tb, m, n, k, factor(alpha, compute_type), factor(beta, compute_type),
                   (struct operand){a, a_type, lda, a_stride}, (struct operand){b, b_type, ldb, b_stride},
                   (struct operand){c, c_type, ldc, c_stride}, count);
}

API int cublasSgemm_v2(struct handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                       const float *b, int ldb, const float *beta, float *c, int ldc) {
    return product(h, "cublasSgemm", ta, tb, m, n, k, *alpha, *beta, (struct operand){a, TYPE_FLOAT, lda, 0},
                   (struct operand){b, TYPE_FLOAT, ldb, 0}, (struct operand){c, TYPE_FLOAT, ldc, 0}, 1);
}

API int cublasSgemmStridedBatched(struct handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a,
                                  int lda, long long a_stride, const float *b, int ldb, long long b_stride, const float *beta,
                                  float *c, int ldc, long long c_stride, int count) {
    return product(h, "cublasSgemmStridedBatched", ta, tb, m, n, k, *alpha, *beta,
                   (struct operand){a, TYPE_FLOAT, lda, a_stride}, (struct operand){b, TYPE_FLOAT, ldb, b_stride},
                   (struct operand){c, TYPE_FLOAT, ldc, c_stride}, count);
}

/* ---- the rest of what the provider links ---- */
NOT_EMULATED(cublasDgeam, UNSUPPORTED)
NOT_EMULATED(cublasDgemmBatched, UNSUPPORTED)
NOT_EMULATED(cublasDgemmStridedBatched, UNSUPPORTED)
NOT_EMULATED(cublasDgemm_v2, UNSUPPORTED)
NOT_EMULATED(cublasDgetrfBatched, UNSUPPORTED)
NOT_EMULATED(cublasDgetriBatched, UNSUPPORTED)
NOT_EMULATED(cublasGemmBatchedEx, UNSUPPORTED)
NOT_EMULATED(cublasScopy_v2, UNSUPPORTED)
NOT_EMULATED(cublasSgeam, UNSUPPORTED)
NOT_EMULATED(cublasSgemmBatched, UNSUPPORTED)
NOT_EMULATED(cublasSgetrfBatched, UNSUPPORTED)
NOT_EMULATED(cublasSgetriBatched, UNSUPPORTED)
NOT_EMULATED(cublasSscal_v2, UNSUPPORTED)
