/* The operations: their arguments, and what a kernel is that computes one. levels.c says which kernel runs where.
 *
 * The work of an operation is cut into units that may run in any order and on any thread. A row of the result has the same
 * bits whatever the other rows are and however the work is cut; so a text's score does not depend on its batch.
 */
#ifndef FUSEDBERT_KERNELS_H
#define FUSEDBERT_KERNELS_H

#include "types.h"

/* Dense: y = act(x W + b), in one of three number formats. A kernel is for one of them:
 *
 *   int8   unsigned activations by signed weights, sums of 32 bits
 *   bf16   bfloat16 by bfloat16, sums in float32
 *   fp32   float32
 *
 * In the first two the weights lie in panels of PANEL outputs, and in a panel by as many inputs as an instruction takes at once:
 * int8 [panels, inputs / 4, PANEL, 4] for vpdpbusd, bf16 [panels, inputs / 2, PANEL, 2] for vdpbf16ps. So a panel is read once from
 * front to back. Both sizes are rounded up with zeros.
 *
 * In the first two a product may end otherwise. Panels are whole then, and their left and right halves go together:
 *
 *   GATED    y = act(a) g, a being the left half and g the right one of the same 16 neurons; y is half as wide (Shazeer 2020)
 *   TURNED   y = rope(x W + b), for the 16 pairs of a left and a right number (Su et al. 2021); activation is IDENTITY
 */
enum { PANEL = 32, DENSE_ROWS = 512 }; /* outputs of a panel; rows of a unit */

struct dense {
    const void *x;         /* [rows, inputs] */
    const void *weight;    /* in panels; float32: [inputs, outputs], ONNX's own layout */
    const float *bias;     /* [outputs], or NULL */
    const float *scale;    /* int8: [outputs], scale of x times the scale of each output's weights */
    const int32_t *offset; /* int8: [PANEL * panels], zero point of x times the sum of each output's weights */
    size_t rows, inputs, outputs;
    enum activation activation;
    float *y;     /* [rows, outputs]; one of the three, the others are NULL */
    bf16 *y16;    /* not of int8 and fp32 */
    uint8_t *y8;  /* int8 alone */
    struct rounding rounding; /* of y8 */
    enum ending ending;
    const float *cos, *sin; /* TURNED: [positions, head / 2] each; a row's position is its place in its text */
    size_t tokens, head;    /* TURNED: rows of a text, of at most so many positions; width of a head, a multiple of PANEL */
};
static inline size_t dense_panels(const struct dense *d) { return (d->outputs + PANEL - 1) / PANEL; }
static inline size_t dense_units(const struct dense *d) { return dense_panels(d) * ((d->rows + DENSE_ROWS - 1) / DENSE_ROWS); }

/* A unit of the float32 product is a strip of outputs by DENSE_ROWS rows. Its weights have no panels. */
enum { STRIP = 64 }; /* outputs of a strip */
static inline size_t dense_strips(const struct dense *d) { return (d->outputs + STRIP - 1) / STRIP; }
static inline size_t strip_units(const struct dense *d) { return dense_strips(d) * ((d->rows + DENSE_ROWS - 1) / DENSE_ROWS); }

/* Attention: y = softmax(q k^T) v for each head of each text (Vaswani et al. 2017). A unit is one head of one text.
 *
 * Keys beyond a text's own length do not exist: padding costs nothing and changes no bit of the result. With as many queries
 * as keys both are the same tokens, and the rows of padding get 0, which in eight bits is the zero point.
 *
 * With a window, query i sees the keys j with |i - j| <= window (Beltagy et al. 2020). A block of queries multiplies the keys from
 * the first that one of them sees to the last, and all others are skipped. What a query does not see of these has no weight: its
 * bits depend on its text and the window, not on its block. But infinity or NaN spoils the block, in fixed point its chunk.
 */
struct attention {
    const void *q, *k, *v; /* [batch, queries, hidden], [batch, keys, hidden] twice; q has 1 / sqrt(head) in it already */
    enum format format;    /* of the three: FLOAT32, or BFLOAT16 for the kernels that compute in it */
    const int64_t *lengths; /* [batch]: tokens of each text; NULL if no text is padded */
    size_t batch, queries, keys, heads, head; /* head: width of a head, a multiple of 16; hidden = heads * head */
    size_t window; /* 0: a query sees all keys; else there are as many queries as keys */
    bf16 *y16;                /* [batch, queries, hidden]; one of the two, the other is NULL */
    uint8_t *y8;
    struct rounding rounding; /* of y8 */
    char *scratch; /* for each unit as many bytes as the kernel's scratch() says, aligned to 64 */
};
static inline size_t attention_units(const struct attention *a) { return a->batch * a->heads; }

/* Attention with DeBERTa's disentangled scores (He et al. 2021): q_i k_j + q_i K[b(i - j)] + k_j Q[b(i - j)], where K and Q have a row
 * for each bucket of distances, and b(d + 1) is b(d) or b(d) + 1. Q is scaled as q is. There is no window. Queries are all tokens, as
 * keys are, or only the first token. A unit is one head of one text, and texts follow each other before heads.
 */
enum { SPARE = 16, SLOTS = 64 }; /* zeros behind a table's buckets; units that may run at the same time */

struct disentangled {
    struct attention attention; /* first, as scratch() takes it; its scratch is so many bytes for each of slots_of() */
    const bf16 *position_key, *position_query; /* K and Q, [heads, head / 2, columns, 2]; may be NULL */
    const float *position_bias; /* [heads, columns], added to the scores as it is, in place of K (Song et al. 2020); or NULL */
    size_t columns;                  /* the buckets, and SPARE */
    const int32_t *rising, *falling; /* b(i - j) is rising[middle + i - j] and falling[middle + j - i]: lay_out_buckets() */
    size_t middle;
    uint64_t free; /* slots of the scratch that no unit uses, as bits; all of slots_of() when a run begins */
};
static inline size_t slots_of(const struct attention *a) {
    return attention_units(a) < SLOTS ? attention_units(a) : SLOTS;
}

/* Write the buckets of all distances in a text of so many keys, rising and falling, as 2 bucket_numbers(keys) numbers to out.
 * buckets: those of -(reach - 1) to reach - 1; farther ones are as the last. */
static inline size_t bucket_numbers(size_t keys) { return 2 * ((keys + 15) / 16 * 16) - 1; }
static inline void lay_out_buckets(struct disentangled *d, const int64_t *buckets, size_t reach, int32_t *out) {
    const size_t count = bucket_numbers(d->attention.keys), middle = count / 2;
    for (size_t i = 0; i < count; i++) {
        const size_t at = i + reach - 1 < middle ? 0 : i + reach - 1 - middle; /* of the distance i - middle */
        out[i] = out[2 * count - 1 - i] = (int32_t)buckets[at < 2 * reach - 2 ? at : 2 * reach - 2];
    }
    d->rising = out, d->falling = out + count, d->middle = middle;
    d->free = ~(uint64_t)0 >> (SLOTS - slots_of(&d->attention));
}

/* Layer normalization over the last axis (Ba et al. 2016), of x or of x + factor residual. Where the norm comes before the next
 * layer, the sum itself goes on as the residual: y is the sum then, and only y8 or y16 is normalized.
 */
enum { NORM_ROWS = 4 }; /* rows of a unit */

struct norm {
    const float *x;        /* [rows, width]; may be y */
    float *y;              /* [rows, width], the result, or the sum */
    const float *residual; /* [rows, width], or NULL */
    const float *factor;   /* [width], or NULL: 1 */
    const float *gamma, *beta; /* [width] */
    float epsilon;
    size_t rows, width;
    uint8_t *y8; /* [rows, width], the result in eight bits, or NULL */
    bf16 *y16;   /* [rows, width], the result in bfloat16, or NULL */
    struct rounding rounding;
    int keeps_sum; /* whether y is the sum */
};
static inline size_t norm_units(const struct norm *n) { return (n->rows + NORM_ROWS - 1) / NORM_ROWS; }

/* Embeddings: the sum of a word's, a position's and a segment's vector, as far as there are tables, normalized; a row for each token of each text. A unit is
 * that of the normalization. Indices below 0 count from the end of a table, as in ONNX; the caller has found all in their table.
 */
struct embed {
    const int64_t *ids, *segments; /* [texts, tokens] each; segments NULL: there are none */
    const void *word;              /* [words, width], int8 or float16 */
    const float *scale;            /* int8: [words] */
    const float *position;              /* [positions, width]; NULL: there are none */
    const float *token_type;            /* [segment kinds, width] */
    size_t tokens, words, kinds;
    int counted;        /* positions: 0, 1, 2 ..., or RoBERTa's: padding_id at padding, the others counted from padding_id + 1 */
    int64_t padding_id;
    struct norm norm; /* its x and residual are not used */
};
static inline size_t row_of(int64_t index, size_t rows) { return index < 0 ? rows + (size_t)index : (size_t)index; }

/* The position of a token, given by its row among those of all texts. */
static inline size_t position_of(const struct embed *e, size_t row) {
    const size_t place = row % e->tokens;
    const int64_t *text = e->ids + (row - place);
    size_t count = 0;
    if (!e->counted) return place;
    if (text[place] == e->padding_id) return (size_t)e->padding_id;
    for (size_t i = 0; i <= place; i++) count += text[i] != e->padding_id;
    return (size_t)e->padding_id + count;
}

/* Gelu in float32, exact to its last digits: y = x Phi(x), or its approximation by tanh. */
enum { GELU_NUMBERS = 4096 }; /* numbers of a unit */

struct gelu {
    const float *x; /* [count] */
    float *y;       /* [count] */
    size_t count;
    enum activation kind; /* GELU or GELU_TANH */
};
static inline size_t gelu_units(const struct gelu *g) { return (g->count + GELU_NUMBERS - 1) / GELU_NUMBERS; }

/* A kernel: the functions that compute an operation with one family of instruction sets. */
struct kernel {
    void (*unit)(void *operation, size_t unit);                                  /* compute one unit of the struct */
    void (*offsets)(const struct dense *d, int32_t zero_point, int32_t *offset); /* dense in int8: fill in offset */
    size_t (*scratch)(const struct attention *a); /* attention: bytes that one unit needs, a multiple of 64 */
    double cost; /* nanoseconds of one thread, roughly: of a multiply-add (dense, attention), of a number (norm, gelu, embed) */
};

#endif
