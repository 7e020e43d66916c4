/* cuBLASLt: the provider links it, but no graph uses it. */
#include <stdlib.h>

#include "fake_cuda.h"

enum { UNSUPPORTED = 15 }; /* CUBLAS_STATUS_NOT_SUPPORTED */

CREATES(cublasLtCreate)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatrixTransformDescCreate)
DESTROYS(cublasLtDestroy)
DESTROYS(cublasLtMatmulDescDestroy)
DESTROYS(cublasLtMatmulPreferenceDestroy)
DESTROYS(cublasLtMatrixLayoutDestroy)
DESTROYS(cublasLtMatrixTransformDescDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
NOT_EMULATED(cublasLtMatmul, UNSUPPORTED)
NOT_EMULATED(cublasLtMatmulAlgoConfigSetAttribute, UNSUPPORTED)
NOT_EMULATED(cublasLtMatmulAlgoGetHeuristic, UNSUPPORTED)
NOT_EMULATED(cublasLtMatmulAlgoInit, UNSUPPORTED)
NOT_EMULATED(cublasLtMatrixTransform, UNSUPPORTED)
