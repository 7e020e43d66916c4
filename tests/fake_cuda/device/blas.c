/* cuBLAS: matrix products in float16 and float32 are traced. Other calls fail and are reported. */
#include "fake_cuda.h"

#include <stdlib.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, FAILED = 13, UNSUPPORTED = 15 };

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

/* ---- products: [m, k] times [k, n], count of them ---- */
static int product(struct handle *h, const char *call, int m, int n, int k, int count) {
    if (count == 1) fake_cuda_trace("GEMM %s %dx%dx%d%s", call, m, n, k, fake_cuda_suffix(h->stream));
    else fake_cuda_trace("GEMM %s %dx%dx%d times %d%s", call, m, n, k, count, fake_cuda_suffix(h->stream));
    return fake_cuda_compute_nothing(h->stream) ? FAILED : SUCCESS;
}

API int cublasGemmEx(struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,
                     int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, int ldc,
                     int compute_type, int algorithm) {
    return product(h, "cublasGemmEx", m, n, k, 1);
}

API int cublasGemmStridedBatchedEx(struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                                   int a_type, int lda, long long a_stride, const void *b, int b_type, int ldb,
                                   long long b_stride, const void *beta, void *c, int c_type, int ldc, long long c_stride,
                                   int count, int compute_type, int algorithm) {
    return product(h, "cublasGemmStridedBatchedEx", m, n, k, count);
}

API int cublasSgemm_v2(struct handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                       const float *b, int ldb, const float *beta, float *c, int ldc) {
    return product(h, "cublasSgemm", m, n, k, 1);
}

API int cublasSgemmStridedBatched(struct handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a,
                                  int lda, long long a_stride, const float *b, int ldb, long long b_stride, const float *beta,
                                  float *c, int ldc, long long c_stride, int count) {
    return product(h, "cublasSgemmStridedBatched", m, n, k, count);
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
