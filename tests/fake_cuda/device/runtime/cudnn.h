/* cuDNN's backend descriptors: lists of attributes, and the attention that a graph of operations computes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The attention of an operation graph: softmax(scale Q K') V, with lengths or without. */
struct side { int64_t uid, sizes[4], steps[4]; }; /* [batch, heads, rows, columns] */
struct attention_plan {
    int known;
    struct side q, k, v, o;                  /* k as the second operand: [batch, heads, width, keys] */
    int64_t scale, query_lengths, key_lengths; /* uids; 0: none */
};

struct attribute {
    struct attribute *next;
    int name, type;
    int64_t count;
    char values[] __attribute__((aligned(8)));
};

struct descriptor {
    int type;
    struct attribute *attributes;
    int64_t mode, axis;         /* of a pointwise operation; copied, because the caller destroys the description at once */
    struct attention_plan plan; /* of a graph, and of descriptors created from it */
};

const struct attribute *attribute_of(const struct descriptor *d, int name);
int64_t number(const struct descriptor *d, int name, int64_t otherwise); /* an attribute's first value */

/* cudnn_attention.c */
void understand(struct descriptor *graph);
int run_attention(void *stream, const struct attention_plan *plan, const struct descriptor *pack);

/* Types of descriptors, types and names of attributes, and modes, by cuDNN's numbers. */
enum { POINTWISE_OPERATION = 13, OPERATION_GRAPH = 15, TENSOR = 17, MATMUL_OPERATION = 19 };
enum { TYPE_HANDLE = 0, TYPE_BOOLEAN = 2, TYPE_INT64 = 3, TYPE_DOUBLE = 5, TYPE_POINTER = 6, TYPE_DESCRIPTOR = 15 };
enum { TYPE_FRACTION = 21, TYPE_BEHAVIOR = 23 };
enum {
    POINTWISE_MODE = 0,
    POINTWISE_AXIS = 9,
    HEURISTIC_GRAPH = 201,
    HEURISTIC_RESULTS = 202,
    CONFIGURATION_ENGINE = 300,
    PLAN_CONFIGURATION = 401,
    OPERATION_POINTWISE = 750,
    OPERATION_X = 751,
    OPERATION_B = 752,
    OPERATION_Y = 753,
    GRAPH_OPERATIONS = 801,
    TENSOR_DATA_TYPE = 901,
    TENSOR_SIZES = 902,
    TENSOR_STEPS = 903,
    TENSOR_UID = 906,
    TENSOR_VIRTUAL = 907,
    TENSOR_BY_VALUE = 908,
    PACK_UIDS = 1000,
    PACK_POINTERS = 1001,
    MATMUL_A = 1520,
    MATMUL_B = 1521,
    MATMUL_C = 1522,
};
enum { DATA_FLOAT = 0, DATA_HALF = 2, DATA_INT32 = 4, MODE_MUL = 1 };
enum { CUDNN_OK = 0, CUDNN_FAILED = 5000, CUDNN_UNSUPPORTED = 3000 };
