/* Disentangled attention (He et al. 2021) as an operator: attention with two tables of positions, and the buckets of distances. */
#ifndef FUSEDBERT_DISENTANGLED_H
#define FUSEDBERT_DISENTANGLED_H

#include "encoder.h"

struct disentangled_kernel {
    struct attention_kernel base; /* first: attention_destroy takes it */
    struct disentangled positions; /* without the inputs of a run */
    const int64_t *buckets;        /* [2 reach - 1] */
    size_t reach, first;           /* first: place of the tables among the inputs */
};

/* Read one of the tables, if it is there. */
static inline OrtStatus *position_table(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct disentangled_kernel *k,
                                        const bf16 **data, size_t *head) {
    struct tensor table;
    TRY(optional_constant(ort, info, index, &table));
    if (!table.data) return NULL;
    EXPECT(table.rank == 4 && (size_t)table.shape[0] == k->base.attention.heads && table.shape[3] == 2,
           "tables of positions have to be [heads, head / 2, columns, 2]");
    EXPECT((!k->positions.columns || k->positions.columns == (size_t)table.shape[2]) &&
               (!*head || *head == 2 * (size_t)table.shape[1]), "the two tables of positions differ in size");
    k->positions.columns = (size_t)table.shape[2], *head = 2 * (size_t)table.shape[1];
    advise_huge_pages(table.data, table.count * sizeof(bf16));
    *data = table.data;
    return NULL;
}

/* Read the numbers of distances, if they are there. */
static inline OrtStatus *position_numbers(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct disentangled_kernel *k) {
    struct tensor numbers;
    TRY(optional_constant(ort, info, index, &numbers));
    if (!numbers.data) return NULL;
    EXPECT(numbers.rank == 2 && (size_t)numbers.shape[0] == k->base.attention.heads, "position_bias has to be [heads, columns]");
    EXPECT(!k->positions.columns, "position_bias takes the place of the tables of positions");
    k->positions.columns = (size_t)numbers.shape[1], k->positions.position_bias = numbers.data;
    return NULL;
}

/* Read the buckets, and check that they are what the kernel counts on: neighbours differ by 0 or 1, and all are in the tables. */
static inline OrtStatus *position_buckets(const OrtApi *ort, const OrtKernelInfo *info, size_t index, struct disentangled_kernel *k) {
    struct tensor buckets;
    TRY(constant(ort, info, index, &buckets));
    const int64_t *b = buckets.data;
    EXPECT(buckets.rank == 1 && buckets.count % 2 == 1, "buckets have to be [2 reach - 1]");
    for (size_t i = 1; i < buckets.count; i++)
        EXPECT(b[i] == b[i - 1] || b[i] == b[i - 1] + 1, "buckets have to rise by 0 or 1 from a distance to the next");
    EXPECT(b[0] >= 0 && b[buckets.count - 1] + SPARE < (int64_t)k->positions.columns,
           "a bucket is not in the tables, which end with 16 columns of zeros");
    k->buckets = b, k->reach = buckets.count / 2 + 1;
    return NULL;
}

/* Read what follows the inputs of attention: the two tables, and the buckets. */
static inline OrtStatus *disentangled_start(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                            struct disentangled_kernel *k, size_t first) {
    size_t head = 0;
    k->base.attend = self->level->kernels[DISENTANGLED], k->first = first;
    TRY(position_table(ort, info, first, k, &k->positions.position_key, &head));
    TRY(position_table(ort, info, first + 1, k, &k->positions.position_query, &head));
    TRY(position_numbers(ort, info, first + 3, k));
    EXPECT(k->positions.columns, "disentangled attention takes a table of positions for keys, for queries, or both, or position_bias");
    k->base.attention.head = head;
    return position_buckets(ort, info, first + 2, k);
}

static inline OrtStatus *disentangled_inputs(const struct disentangled_kernel *self, OrtKernelContext *context,
                                             struct disentangled *d) {
    const OrtApi *ort = self->base.ort;
    const size_t head = self->base.attention.head;
    const OrtValue *key = NULL, *query = NULL, *numbers = NULL;
    d->attention = self->base.attention;
    TRY(attention_inputs(ort, context, &d->attention));
    EXPECT(!head || d->attention.head == head, "tables of positions are not as wide as the heads");
    EXPECT(d->attention.queries == d->attention.keys || d->attention.queries == 1,
           "disentangled attention takes as many queries as keys, or the first");
    if (!d->position_key) TRY(KernelContext_GetInput(context, self->first, &key));
    if (!d->position_query) TRY(KernelContext_GetInput(context, self->first + 1, &query));
    if (!d->position_bias) TRY(KernelContext_GetInput(context, self->first + 3, &numbers));
    EXPECT(!key && !query && !numbers, "tables of positions have to be constants of the model");
    return NULL;
}

static inline OrtStatus *disentangled_compute(void *kernel, OrtKernelContext *context) {
    const struct disentangled_kernel *self = kernel;
    const OrtApi *ort = self->base.ort;
    struct disentangled d = self->positions;
    struct attention *a = &d.attention;
    void *scratch, *buckets;
    TRY(disentangled_inputs(self, context, &d));
    TRY(attention_memory(&self->base, context, a, slots_of(a), &scratch));
    if (!scratch) return NULL;
    OrtStatus *status = AllocatorAlloc(self->base.allocator, 2 * bucket_numbers(a->keys) * sizeof(int32_t), &buckets);
    if (status) {
        OrtStatus *freed = AllocatorFree(self->base.allocator, scratch);
        if (freed) ReleaseStatus(freed);
        return status;
    }
    lay_out_buckets(&d, self->buckets, self->reach, buckets);
    status = attention_run(&self->base, context, a, 2, scratch);
    OrtStatus *freed = AllocatorFree(self->base.allocator, buckets);
    if (status && freed) ReleaseStatus(freed);
    return status ? status : freed;
}

#endif
