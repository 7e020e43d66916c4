/* What a graph does with its inputs, in int8 and bfloat16 alike: embeddings of the ids, and lengths from the mask. */
#ifndef FUSEDBERT_INPUTS_H
#define FUSEDBERT_INPUTS_H

#include <stdio.h>

#include "encoder.h"

struct embed_kernel {
    const OrtApi *ort;
    const struct kernel *look_up;
    struct embed embed; /* without the inputs of a run */
    struct tensor position;
};

/* Read the tables, and what follows them in both formats; the attribute padding_id is there where positions are counted. */
static inline OrtStatus *embed_start(const OrtApi *ort, const OrtKernelInfo *info, struct embed_kernel *k,
                                     const struct kernel *look_up) {
    struct embed *e = &k->embed;
    struct tensor word, token_type;
    k->ort = ort, k->look_up = look_up;
    TRY(constant(ort, info, 2, &word));
    EXPECT(word.rank == 2 && word.shape[1] > 0, "word vectors have to be [words, width]");
    e->word = word.data, e->words = (size_t)word.shape[0], e->norm.width = (size_t)word.shape[1];
    TRY(optional_constant(ort, info, 3, &k->position)); /* not constant where the session widens it at each run */
    TRY(optional_constant(ort, info, 4, &token_type));
    EXPECT(!token_type.data || (token_type.rank == 2 && token_type.shape[1] == word.shape[1]),
           "vectors of segments have to be as wide as those of words");
    e->token_type = token_type.data, e->kinds = token_type.data ? (size_t)token_type.shape[0] : 0;
    OrtStatus *absent = KernelInfoGetAttribute_int64(info, "padding_id", &e->padding_id);
    e->counted = !absent;
    if (absent) ReleaseStatus(absent);
    EXPECT(!e->counted || e->padding_id >= 0, "padding_id has to be 0 or more");
    return norm_weights(ort, info, &e->norm, e->norm.width, 5);
}

/* Refuse an index that is outside of its table, as ONNX's Gather does. */
static inline OrtStatus *find_rows(const OrtApi *ort, const char *name, const int64_t *indices, size_t count, size_t rows) {
    char message[128];
    for (size_t i = 0; i < count; i++)
        if (indices[i] < -(int64_t)rows || indices[i] >= (int64_t)rows) {
            snprintf(message, sizeof message, "%s has the index %lld, and its table has %zu rows", name, (long long)indices[i],
                     rows);
            return CreateStatus(ORT_INVALID_ARGUMENT, message);
        }
    return NULL;
}

/* Return whether all positions are in their table. Counted ones grow along a text. */
static inline int find_positions(const struct embed *e, size_t rows) {
    if (!e->counted) return e->tokens <= rows;
    size_t count = 0;
    for (size_t i = 0; i < e->norm.rows; i++) {
        if (i % e->tokens == 0) count = 0;
        count += e->ids[i] != e->padding_id;
        if ((size_t)e->padding_id + count >= rows) return 0;
    }
    return 1;
}

static inline OrtStatus *embed_inputs(const struct embed_kernel *self, OrtKernelContext *context, struct embed *e,
                                      struct tensor *ids) {
    const OrtApi *ort = self->ort;
    const OrtValue *given;
    struct tensor segments, position = self->position;
    TRY(input(ort, context, 0, ids));
    EXPECT(ids->rank == 2, "input_ids has to be [texts, tokens]");
    e->ids = ids->data, e->norm.rows = ids->count, e->tokens = (size_t)ids->shape[1];
    TRY(find_rows(ort, "input_ids", e->ids, ids->count, e->words));
    TRY(KernelContext_GetInput(context, 1, &given));
    EXPECT(!given == !e->token_type, "segments and their vectors go together, and these have to be a constant of the model");
    if (given) {
        TRY(describe(ort, given, &segments));
        EXPECT(segments.rank == 2 && !memcmp(segments.shape, ids->shape, 2 * sizeof *ids->shape),
               "token_type_ids does not have the shape of input_ids");
        e->segments = segments.data;
        TRY(find_rows(ort, "token_type_ids", e->segments, ids->count, e->kinds));
    }
    TRY(KernelContext_GetInput(context, 3, &given));
    EXPECT(given || !e->counted, "positions are counted, but their table is missing");
    if (!given) return NULL;
    if (!position.data) TRY(describe(ort, given, &position));
    EXPECT(position.rank == 2 && (size_t)position.shape[1] == e->norm.width,
           "vectors of positions have to be as wide as those of words");
    EXPECT(find_positions(e, (size_t)position.shape[0]), "a text is longer than the table of positions");
    e->position = position.data;
    return NULL;
}

static inline OrtStatus *embed_compute(void *kernel, OrtKernelContext *context) {
    const struct embed_kernel *self = kernel;
    const OrtApi *ort = self->ort;
    struct embed e = self->embed;
    struct tensor ids;
    TRY(embed_inputs(self, context, &e, &ids));
    const int64_t shape[3] = {ids.shape[0], ids.shape[1], (int64_t)e.norm.width};
    TRY(output(ort, context, 0, shape, 3, &e.norm.y));
    TRY(output(ort, context, 1, shape, 3, e.scale ? (void *)&e.norm.y8 : (void *)&e.norm.y16));
    return parallel_for(ort, context, self->look_up, norm_units(&e.norm), (double)(e.norm.rows * e.norm.width), &e);
}

struct lengths_kernel {
    const OrtApi *ort;
};

static inline OrtStatus *lengths_create(const struct custom_op *self, const OrtApi *ort, const OrtKernelInfo *info,
                                        void *kernel) {
    (void)self, (void)info;
    ((struct lengths_kernel *)kernel)->ort = ort;
    return NULL;
}

/* The number of ones in each row of the mask, or -1 if a zero is before a one. */
static inline OrtStatus *lengths_compute(void *kernel, OrtKernelContext *context) {
    const OrtApi *ort = ((const struct lengths_kernel *)kernel)->ort;
    struct tensor mask;
    int64_t *lengths;
    TRY(input(ort, context, 0, &mask));
    EXPECT(mask.rank == 2, "attention_mask has to be [texts, tokens]");
    EXPECT(mask.shape[1] || !mask.shape[0], "attention_mask has no tokens");
    TRY(output(ort, context, 0, mask.shape, 1, &lengths));
    const size_t tokens = (size_t)mask.shape[1];
    for (size_t text = 0; text < (size_t)mask.shape[0]; text++) {
        const int64_t *row = (const int64_t *)mask.data + text * tokens;
        int64_t sum = 0, last = 0;
        for (size_t i = 0; i < tokens; i++) {
            sum += row[i];
            if ((int32_t)row[i] >= (int32_t)row[last]) last = (int64_t)i; /* as the function of the model has it */
        }
        lengths[text] = last + 1 == sum ? sum : -1;
    }
    return NULL;
}

#endif
