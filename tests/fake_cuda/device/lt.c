/* cuBLASLt: the provider links it, and none of our graphs use it. */
#include <stdlib.h>

#include "pretended.h"

#define MAKES(name) API int name(void **made) { return *made = calloc(1, 64), 0; }
#define FREES(name) API int name(void *made) { return free(made), 0; }
#define NOBODY(name)                                                    \
    API int name(void) {                                                \
        pretended_alarm("UNKNOWN " #name ": nothing here computes it"); \
        return 15; /* CUBLAS_STATUS_NOT_SUPPORTED */                    \
    }
#define NOTHING(name) API int name(void) { return 0; }

MAKES(cublasLtCreate)
MAKES(cublasLtMatmulDescCreate)
MAKES(cublasLtMatmulPreferenceCreate)
MAKES(cublasLtMatrixLayoutCreate)
MAKES(cublasLtMatrixTransformDescCreate)
FREES(cublasLtDestroy)
FREES(cublasLtMatmulDescDestroy)
FREES(cublasLtMatmulPreferenceDestroy)
FREES(cublasLtMatrixLayoutDestroy)
FREES(cublasLtMatrixTransformDescDestroy)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatrixLayoutSetAttribute)
NOBODY(cublasLtMatmul)
NOBODY(cublasLtMatmulAlgoConfigSetAttribute)
NOBODY(cublasLtMatmulAlgoGetHeuristic)
NOBODY(cublasLtMatmulAlgoInit)
NOBODY(cublasLtMatrixTransform)
