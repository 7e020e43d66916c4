/* What a library of operators for ONNX Runtime is made of: tensors, threads, and what the runtime asks of an operator. */
#ifndef FUSEDBERT_OPERATOR_H
#define FUSEDBERT_OPERATOR_H

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "dense.h"
#include "ort.h"

#define EXPORT __attribute__((visibility("default")))
#define TRY(call)                      \
    do {                               \
        OrtStatus *status_ = (call);   \
        if (status_) return status_;   \
    } while (0)
#define EXPECT(condition, message)                                                  \
    do {                                                                            \
        if (!(condition)) return CreateStatus(ORT_INVALID_ARGUMENT, message);       \
    } while (0)

enum { MAX_RANK = 4 };
static const double ALONE = 2000; /* nanoseconds: what one thread does sooner than it wakes another */

struct tensor {
    void *data;
    size_t rank, count; /* count: of all numbers */
    int64_t shape[MAX_RANK];
};

static inline OrtStatus *describe(const OrtApi *ort, const OrtValue *value, struct tensor *tensor) {
    OrtShape *shape;
    EXPECT(value, "an input is missing");
    TRY(GetTensorTypeAndShape(value, &shape));
    OrtStatus *status = GetDimensionsCount(shape, &tensor->rank);
    if (!status && tensor->rank <= MAX_RANK) status = GetDimensions(shape, tensor->shape, tensor->rank);
    ReleaseTensorTypeAndShapeInfo(shape);
    TRY(status);
    EXPECT(tensor->rank <= MAX_RANK, "an input has more than four axes");
    tensor->count = 1;
    for (size_t i = 0; i < tensor->rank; i++) tensor->count *= (size_t)tensor->shape[i];
    return GetTensorMutableData(value, &tensor->data);
}

static inline OrtStatus *input(const OrtApi *ort, OrtKernelContext *context, size_t index, struct tensor *tensor) {
    const OrtValue *value;
    TRY(KernelContext_GetInput(context, index, &value));
    return describe(ort, value, tensor);
}

static inline OrtStatus *output(const OrtApi *ort, OrtKernelContext *context, size_t index, const int64_t *shape, size_t rank, void *data) {
    OrtValue *value;
    TRY(KernelContext_GetOutput(context, index, shape, rank, &value));
    EXPECT(value, "an output is missing");
    return GetTensorMutableData(value, data);
}

/* A constant of the model; its memory is the session's and stays where it is. */
static inline OrtStatus *constant(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct tensor *tensor) {
    const OrtValue *value = NULL;
    int is_constant = 0;
    TRY(KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
    EXPECT(is_constant, "weights and scales have to be constants of the model");
    return describe(ort, value, tensor);
}

/* Call f for each of n units, on all threads where the work is worth waking them. */
static inline OrtStatus *spread(const OrtApi *ort, OrtKernelContext *context, void (*f)(void *, size_t), size_t n, double work, void *data) {
    if (n > 1 && work > ALONE) return KernelContext_ParallelFor(context, f, n, 0, data);
    for (size_t i = 0; i < n; i++) f(data, i);
    return NULL;
}

struct operator {
    OrtCustomOp op; /* first: ONNX Runtime hands out this, and the operator is found by it */
    const char *name;
    const char *inputs, *outputs; /* a letter for the type of each: u uint8, i int8, l int64, f float32 */
    OrtStatus *(*make)(const struct operator *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel);
    void (*destroy)(void *kernel);
    size_t size; /* of a kernel */
    enum activation activation;
};

static inline const struct operator *self_of(const OrtCustomOp *op) { return (const struct operator *)op; }

static inline OrtStatus *create(const OrtCustomOp *op, const OrtApi *ort, const OrtKernelInfo *info, void **kernel) {
    const struct operator *self = self_of(op);
    void *made = calloc(1, self->size);
    if (!made) return CreateStatus(ORT_FAIL, "out of memory");
    OrtStatus *status = self->make(self, ort, info, made);
    if (status) self->destroy(made);
    else *kernel = made;
    return status;
}

static inline int type_of(char letter) {
    return letter == 'u' ? ORT_UINT8 : letter == 'i' ? ORT_INT8 : letter == 'l' ? ORT_INT64 : ORT_FLOAT;
}
static inline const char *name(const OrtCustomOp *op) { return self_of(op)->name; }
static inline const char *provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static inline int input_type(const OrtCustomOp *op, size_t i) { return type_of(self_of(op)->inputs[i]); }
static inline int output_type(const OrtCustomOp *op, size_t i) { return type_of(self_of(op)->outputs[i]); }
static inline size_t inputs(const OrtCustomOp *op) { return strlen(self_of(op)->inputs); }
static inline size_t outputs(const OrtCustomOp *op) { return strlen(self_of(op)->outputs); }
static inline int zero_at(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, 0; } /* required; in the default memory */
static inline int one(const OrtCustomOp *op) { return (void)op, 1; }

#define OP(make_compute, make_destroy)                                                                                 \
    {                                                                                                                  \
        .version = ORT_VERSION, .GetName = name, .GetExecutionProviderType = provider, .GetInputType = input_type,     \
        .GetInputTypeCount = inputs, .GetOutputType = output_type, .GetOutputTypeCount = outputs,                      \
        .KernelDestroy = make_destroy, .GetInputCharacteristic = zero_at, .GetOutputCharacteristic = zero_at,          \
        .GetInputMemoryType = zero_at, .GetVariadicInputMinArity = one, .GetVariadicInputHomogeneity = one,            \
        .GetVariadicOutputMinArity = one, .GetVariadicOutputHomogeneity = one, .CreateKernelV2 = create,               \
        .KernelComputeV2 = make_compute                                                                                \
    }
#define OPERATOR(named, ins, outs, family, struct_of, destroy_it, kind)                                                \
    {                                                                                                                  \
        .op = OP(family##_compute, destroy_it), .name = named, .inputs = ins, .outputs = outs, .make = family##_make,  \
        .destroy = destroy_it, .size = sizeof(struct struct_of), .activation = kind                                    \
    }

#endif
