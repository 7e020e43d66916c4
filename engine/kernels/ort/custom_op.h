/* The parts of a library of custom operators for ONNX Runtime: tensors, threads, operators, and their registration. */
#ifndef FUSEDBERT_CUSTOM_OP_H
#define FUSEDBERT_CUSTOM_OP_H

#include <stdlib.h>
#include <string.h>

#include "../levels.h"
#include "ort.h"

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
static const double FORK = 2000; /* nanoseconds: less work than this is done sooner than another thread wakes up */

struct tensor {
    void *data;
    size_t rank, count; /* count: product of the shape */
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

static inline OrtStatus *output(const OrtApi *ort, OrtKernelContext *context, size_t index, const int64_t *shape, size_t rank,
                                void *data) {
    OrtValue *value;
    TRY(KernelContext_GetOutput(context, index, shape, rank, &value));
    EXPECT(value, "an output is missing");
    return GetTensorMutableData(value, data);
}

/* A constant of the model; its memory belongs to the session and stays where it is. */
static inline OrtStatus *constant(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct tensor *tensor) {
    const OrtValue *value = NULL;
    int is_constant = 0;
    TRY(KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
    EXPECT(is_constant, "weights and scales have to be constants of the model");
    return describe(ort, value, tensor);
}

/* The same for a constant that may be left out: its data is NULL then. */
static inline OrtStatus *optional_constant(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct tensor *tensor) {
    const OrtValue *value = NULL;
    int is_constant = 0;
    *tensor = (struct tensor){0};
    TRY(KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
    return is_constant ? describe(ort, value, tensor) : NULL;
}

/* Compute n units of an operation, on all threads if its cost, so many times the kernel's, is worth waking them. */
static inline OrtStatus *parallel_for(const OrtApi *ort, OrtKernelContext *context, const struct kernel *kernel, size_t n,
                                     double numbers, void *operation) {
    if (n > 1 && numbers * kernel->cost > FORK) return KernelContext_ParallelFor(context, kernel->unit, n, 0, operation);
    for (size_t i = 0; i < n; i++) kernel->unit(operation, i);
    return NULL;
}

/* An operator, and how its kernel, the object that ONNX Runtime holds for a node, is created, run and destroyed. */
struct custom_op {
    OrtCustomOp op; /* first: ONNX Runtime passes a pointer to it, which is one to the operator too */
    const char *name;
    /* A letter for the type of each: u uint8, i int8, l int64, e float16, h bfloat16, f float32. An input in upper case may be left out. */
    const char *inputs, *outputs;
    OrtStatus *(*create)(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info, void *kernel);
    void (*destroy)(void *kernel);
    size_t size; /* of a kernel */
    enum activation activation;
    unsigned needs;            /* operations, as bits: where a level lacks one, ONNX Runtime runs the operator */
    const struct level *level; /* that of the session's kernels */
};

static inline const struct custom_op *custom_op_of(const OrtCustomOp *op) { return (const struct custom_op *)op; }

static inline OrtStatus *create_kernel(const OrtCustomOp *op, const OrtApi *ort, const OrtKernelInfo *info, void **kernel) {
    const struct custom_op *self = custom_op_of(op);
    void *created = calloc(1, self->size);
    if (!created) return CreateStatus(ORT_FAIL, "out of memory");
    OrtStatus *status = self->create(self, ort, info, created);
    if (status) self->destroy(created);
    else *kernel = created;
    return status;
}

static inline int is_optional(char letter) { return letter < 'a'; }
static inline int type_of(char letter) {
    switch (is_optional(letter) ? letter + ('a' - 'A') : letter) {
        case 'u': return ORT_UINT8;
        case 'i': return ORT_INT8;
        case 'l': return ORT_INT64;
        case 'e': return ORT_FLOAT16;
        case 'h': return ORT_BFLOAT16;
        default: return ORT_FLOAT;
    }
}
static inline const char *name(const OrtCustomOp *op) { return custom_op_of(op)->name; }
static inline const char *provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static inline int input_type(const OrtCustomOp *op, size_t i) { return type_of(custom_op_of(op)->inputs[i]); }
static inline int output_type(const OrtCustomOp *op, size_t i) { return type_of(custom_op_of(op)->outputs[i]); }
static inline size_t inputs(const OrtCustomOp *op) { return strlen(custom_op_of(op)->inputs); }
static inline size_t outputs(const OrtCustomOp *op) { return strlen(custom_op_of(op)->outputs); }
static inline int characteristic(const OrtCustomOp *op, size_t i) { return is_optional(custom_op_of(op)->inputs[i]); }
static inline int zero_at(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, 0; } /* required; default memory */
static inline int one(const OrtCustomOp *op) { return (void)op, 1; }

#define OP(compute, destroy)                                                                                           \
    {                                                                                                                  \
        .version = ORT_VERSION, .GetName = name, .GetExecutionProviderType = provider, .GetInputType = input_type,     \
        .GetInputTypeCount = inputs, .GetOutputType = output_type, .GetOutputTypeCount = outputs,                      \
        .KernelDestroy = destroy, .GetInputCharacteristic = characteristic, .GetOutputCharacteristic = zero_at,               \
        .GetInputMemoryType = zero_at, .GetVariadicInputMinArity = one, .GetVariadicInputHomogeneity = one,            \
        .GetVariadicOutputMinArity = one, .GetVariadicOutputHomogeneity = one, .CreateKernelV2 = create_kernel,        \
        .KernelComputeV2 = compute                                                                                     \
    }
#define CUSTOM_OP(named, ins, outs, family, kernel_of, destroy_kernel, activation_of, operations)                      \
    {                                                                                                                  \
        .op = OP(family##_compute, destroy_kernel), .name = named, .inputs = ins, .outputs = outs,                     \
        .create = family##_create, .destroy = destroy_kernel, .size = sizeof(struct kernel_of),                        \
        .activation = activation_of, .needs = operations                                                               \
    }

/* A set of operators, and the domain that they are registered in. */
struct custom_ops {
    const char *domain;
    const struct custom_op *ops;
    size_t count;
};
extern const struct custom_ops CUSTOM_INT8, CUSTOM_BF16, CUSTOM_SHARED, CUSTOM_FP32;

#endif
