/* cuDNN: handles and descriptors. The graph of operations that the provider builds has to be attention; see cudnn_attention.c.
   Other calls of cuDNN fail and are reported. */
#include "cudnn.h"

#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"

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
static size_t size_of(int type) {
    switch (type) {
        case TYPE_BOOLEAN: return 1;
        case TYPE_HANDLE: case TYPE_INT64: case TYPE_DOUBLE: case TYPE_POINTER: case TYPE_DESCRIPTOR: return 8;
        case TYPE_FRACTION: return 16;
        default: return 4;
    }
}

API int cudnnBackendCreateDescriptor(int type, struct descriptor **d) {
    *d = calloc(1, sizeof **d);
    if (!*d) return CUDNN_FAILED;
    (*d)->type = type;
    return CUDNN_OK;
}

API int cudnnBackendDestroyDescriptor(struct descriptor *d) {
    for (struct attribute *a = d ? d->attributes : NULL, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    free(d);
    return CUDNN_OK;
}

const struct attribute *attribute_of(const struct descriptor *d, int name) {
    for (const struct attribute *a = d->attributes; a; a = a->next) if (a->name == name) return a; /* the latest comes first */
    return NULL;
}

int64_t number(const struct descriptor *d, int name, int64_t otherwise) {
    const struct attribute *a = attribute_of(d, name);
    if (!a) return otherwise;
    if (a->type == TYPE_BOOLEAN) return *a->values;
    return a->type == TYPE_INT64 ? *(const int64_t *)a->values : *(const int32_t *)a->values;
}

API int cudnnBackendSetAttribute(struct descriptor *d, int name, int type, int64_t count, const void *values) {
    const size_t size = size_of(type) * (size_t)count;
    struct attribute *a = malloc(sizeof *a + size);
    if (!a) return CUDNN_FAILED;
    *a = (struct attribute){d->attributes, name, type, count};
    if (size) memcpy(a->values, values, size);
    d->attributes = a;
    if (type != TYPE_DESCRIPTOR || count != 1) return CUDNN_OK;
    const struct descriptor *other = *(struct descriptor *const *)values;
    if (name == HEURISTIC_GRAPH || name == PLAN_CONFIGURATION) d->plan = other->plan;
    if (name == OPERATION_POINTWISE) d->mode = number(other, POINTWISE_MODE, -1), d->axis = number(other, POINTWISE_AXIS, -1);
    return CUDNN_OK;
}

API int cudnnBackendFinalize(struct descriptor *d) {
    if (d->type == OPERATION_GRAPH) understand(d);
    return CUDNN_OK;
}

/* One configuration with one engine, without knobs, workspace or notes. */
API int cudnnBackendGetAttribute(struct descriptor *d, int name, int type, int64_t asked, int64_t *count, void *values) {
    const int any = type == TYPE_DESCRIPTOR || type == TYPE_INT64 || type == TYPE_BEHAVIOR;
    if (count) *count = any;
    if (!values || !asked) return CUDNN_OK;
    if (type == TYPE_INT64) *(int64_t *)values = 0;
    if (type == TYPE_BEHAVIOR) *(int32_t *)values = 0;
    if (type == TYPE_DESCRIPTOR && (name == HEURISTIC_RESULTS || name == CONFIGURATION_ENGINE))
        (*(struct descriptor **)values)->plan = d->plan;
    return CUDNN_OK;
}

API int cudnnBackendExecute(struct handle *h, const struct descriptor *plan, const struct descriptor *pack) {
    fake_cuda_trace("KERNEL cudnnBackendExecute%s", fake_cuda_suffix(h->stream));
    return fake_cuda_settings()->compute ? run_attention(h->stream, &plan->plan, pack) : CUDNN_OK;
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
