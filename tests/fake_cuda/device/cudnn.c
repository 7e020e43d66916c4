/* cuDNN: handles, and descriptors without content. Executing a plan leaves a line in the trace, whatever it would compute.
   Other calls of cuDNN fail and are reported. */
#include "fake_cuda.h"

#include <stdlib.h>

enum { CUDNN_OK = 0, CUDNN_FAILED = 5000, CUDNN_UNSUPPORTED = 3000 };
enum { TYPE_INT64 = 3, TYPE_DESCRIPTOR = 15, TYPE_BEHAVIOR = 23 }; /* of attributes, by cuDNN's numbers */

struct handle { void *stream; };

API size_t cudnnGetVersion(void) { return 91400; }
API int cudnnCreate(struct handle **h) {
    if (fake_cuda_forbidden("cudnnCreate") || fake_cuda_ready()) return CUDNN_FAILED; /* it allocates */
    return *h = calloc(1, sizeof **h), CUDNN_OK;
}
API int cudnnDestroy(struct handle *h) { return free(h), CUDNN_OK; }
API int cudnnSetStream(struct handle *h, void *stream) { return h->stream = stream, CUDNN_OK; }
API int cudnnGetStream(struct handle *h, void **stream) { return *stream = h->stream, CUDNN_OK; }
API const char *cudnnGetErrorString(int status) {
    if (status == CUDNN_OK) return "CUDNN_STATUS_SUCCESS";
    return status == CUDNN_UNSUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_EXECUTION_FAILED";
}
API void cudnnGetLastErrorString(char *text, size_t size) { if (size) *text = 0; }

/* ---- descriptors ---- */
API int cudnnBackendCreateDescriptor(int type, void **d) { return *d = calloc(1, 8), *d ? CUDNN_OK : CUDNN_FAILED; }
DESTROYS(cudnnBackendDestroyDescriptor)
SUCCEEDS(cudnnBackendSetAttribute)
SUCCEEDS(cudnnBackendFinalize)

/* One configuration with one engine, without knobs, workspace or notes. */
API int cudnnBackendGetAttribute(void *d, int name, int type, int64_t asked, int64_t *count, void *values) {
    if (count) *count = type == TYPE_DESCRIPTOR || type == TYPE_INT64 || type == TYPE_BEHAVIOR;
    if (!values || !asked) return CUDNN_OK;
    if (type == TYPE_INT64) *(int64_t *)values = 0;
    if (type == TYPE_BEHAVIOR) *(int32_t *)values = 0;
    return CUDNN_OK;
}

API int cudnnBackendExecute(struct handle *h, const void *plan, const void *pack) {
    fake_cuda_trace("KERNEL cudnnBackendExecute%s", fake_cuda_suffix(h->stream));
    return fake_cuda_compute_nothing(h->stream) ? CUDNN_FAILED : CUDNN_OK;
}

/* ---- the rest of what the provider links ---- */
#define KIND(name) CREATES(cudnnCreate##name) DESTROYS(cudnnDestroy##name)

KIND(ActivationDescriptor)
KIND(ConvolutionDescriptor)
KIND(DropoutDescriptor)
KIND(FilterDescriptor)
KIND(LRNDescriptor)
KIND(PoolingDescriptor)
KIND(RNNDataDescriptor)
KIND(RNNDescriptor)
KIND(ReduceTensorDescriptor)
KIND(TensorDescriptor)
SUCCEEDS(cudnnSetActivationDescriptor)
SUCCEEDS(cudnnSetConvolutionGroupCount)
SUCCEEDS(cudnnSetConvolutionMathType)
SUCCEEDS(cudnnSetConvolutionNdDescriptor)
SUCCEEDS(cudnnSetDropoutDescriptor)
SUCCEEDS(cudnnSetFilterNdDescriptor)
SUCCEEDS(cudnnSetLRNDescriptor)
SUCCEEDS(cudnnSetPoolingNdDescriptor)
SUCCEEDS(cudnnSetRNNDataDescriptor)
SUCCEEDS(cudnnSetRNNDescriptor_v8)
SUCCEEDS(cudnnSetReduceTensorDescriptor)
SUCCEEDS(cudnnSetTensorNdDescriptor)
NOT_EMULATED(cudnnActivationForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnAddTensor, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnBatchNormalizationForwardInference, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnBatchNormalizationForwardTraining, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnConvolutionBiasActivationForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnConvolutionForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnDeriveBNTensorDescriptor, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnDropoutGetStatesSize, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnFindConvolutionForwardAlgorithmEx, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetConvolutionForwardAlgorithm_v7, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetConvolutionForwardWorkspaceSize, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetRNNTempSpaceSizes, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetRNNWeightParams, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetReductionIndicesSize, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetReductionWorkspaceSize, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnGetTensorNdDescriptor, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnLRNCrossChannelForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnPoolingForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnRNNForward, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnReduceTensor, CUDNN_UNSUPPORTED)
NOT_EMULATED(cudnnSoftmaxForward, CUDNN_UNSUPPORTED)
