/* The part of ONNX Runtime's C interface that a library of custom operators needs.
 *
 * ONNX Runtime's wheel contains no headers, so the used part of them is declared here: OrtApi is a table of functions to which
 * versions only append, so a function keeps its place (onnxruntime_c_api.h, "OrtApi", and the static_asserts of
 * onnxruntime_c_api.cc). The tests in tests/engine/kernels call each of them in the installed runtime.
 */
#ifndef FUSEDBERT_ORT_H
#define FUSEDBERT_ORT_H

#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION 18 /* of the interface: ONNX Runtime 1.18, the first with all of the functions below */

typedef struct OrtStatus OrtStatus; /* NULL is success */
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtAllocator OrtAllocator;

typedef struct OrtApi {
    void *function[279];
} OrtApi;

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT8 = 3, ORT_INT64 = 7, ORT_FLOAT16 = 10, ORT_BFLOAT16 = 16 }; /* ONNXTensorElementDataType */
enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };                   /* OrtErrorCode */

typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
    void *rest[7]; /* shape inference, versions, in-place and alias maps: none */
};

#define ORT_CALL(place, type, ...) ((type(*) __VA_ARGS__)ort->function[place])
#define CreateStatus ORT_CALL(0, OrtStatus *, (int, const char *))
#define CreateCustomOpDomain ORT_CALL(26, OrtStatus *, (const char *, OrtCustomOpDomain **))
#define CustomOpDomain_Add ORT_CALL(27, OrtStatus *, (OrtCustomOpDomain *, const OrtCustomOp *))
#define AddCustomOpDomain ORT_CALL(28, OrtStatus *, (OrtSessionOptions *, OrtCustomOpDomain *))
#define GetTensorMutableData ORT_CALL(51, OrtStatus *, (const OrtValue *, void **))
#define GetDimensionsCount ORT_CALL(61, OrtStatus *, (const OrtShape *, size_t *))
#define GetDimensions ORT_CALL(62, OrtStatus *, (const OrtShape *, int64_t *, size_t))
#define GetTensorTypeAndShape ORT_CALL(65, OrtStatus *, (const OrtValue *, OrtShape **))
#define AllocatorAlloc ORT_CALL(75, OrtStatus *, (OrtAllocator *, size_t, void **))
#define AllocatorFree ORT_CALL(76, OrtStatus *, (OrtAllocator *, void *))
#define KernelInfoGetAttribute_float ORT_CALL(85, OrtStatus *, (const OrtKernelInfo *, const char *, float *))
#define KernelInfoGetAttribute_int64 ORT_CALL(86, OrtStatus *, (const OrtKernelInfo *, const char *, int64_t *))
#define KernelInfoGetAttribute_string ORT_CALL(87, OrtStatus *, (const OrtKernelInfo *, const char *, char *, size_t *))
#define KernelContext_GetInput ORT_CALL(90, OrtStatus *, (const OrtKernelContext *, size_t, const OrtValue **))
#define KernelContext_GetOutput ORT_CALL(91, OrtStatus *, (OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **))
#define ReleaseStatus ORT_CALL(93, void, (OrtStatus *))
#define ReleaseTensorTypeAndShapeInfo ORT_CALL(99, void, (OrtShape *))
#define ReleaseCustomOpDomain ORT_CALL(101, void, (OrtCustomOpDomain *))
#define ReleaseAllocator ORT_CALL(132, void, (OrtAllocator *))
#define KernelInfoGetConstantInput_tensor ORT_CALL(249, OrtStatus *, (const OrtKernelInfo *, size_t, int *, const OrtValue **))
#define KernelContext_ParallelFor \
    ORT_CALL(274, OrtStatus *, (const OrtKernelContext *, void (*)(void *, size_t), size_t, size_t, void *))
#define KernelInfoGetAllocator ORT_CALL(278, OrtStatus *, (const OrtKernelInfo *, int, OrtAllocator **))

#endif
