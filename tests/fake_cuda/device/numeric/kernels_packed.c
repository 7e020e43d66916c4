/* Kernels of PackedAttention and PackedMultiHeadAttention around the attention itself: T tokens of packed texts,
   N heads of H numbers, M matrices (queries, keys, values); the values may have another width. */
#include "numeric.h"
#include "../runtime/fake_cuda.h"

#include <string.h>

/* ---- add a bias, and bring the three into the layout of an attention kernel ---- */
enum layout {
    TMNH,  /* the result of a product with three weights side by side */
    TNMH,  /* the input of TensorRT's kernels */
    APART, /* three T N H */
    PADDED /* three B N S H, the input of batched products: only written */
};

/* Addresses of the three: a number's place is at[m] + token * row[m] + head * head[m] + h. */
struct three {
    half *at[3];
    size_t row[3], head[3], width[3];
};

/* Sizes in numbers; length: tokens of a padded text. */
static struct three three_of(enum layout layout, half *const *at, size_t heads, size_t width, size_t value_width,
                             size_t length) {
    const size_t widths[3] = {width, width, value_width}, all = 2 * width + value_width;
    struct three t;
    for (size_t m = 0; m < 3; m++) {
        t.width[m] = widths[m];
        t.at[m] = layout == TMNH ? at[0] + m * heads * width : layout == TNMH ? at[0] + m * width : at[m];
        t.row[m] = layout == PADDED ? widths[m] : layout == APART ? heads * widths[m] : heads * all;
        t.head[m] = layout == PADDED ? length * widths[m] : layout == TNMH ? all : widths[m];
    }
    return t;
}

static int reaches_all(const struct launch *l, enum layout layout, half *const *at, size_t tokens, const size_t *sizes) {
    if (layout == TMNH || layout == TNMH) return fake_cuda_reaches(l, at[0], tokens * (sizes[0] + sizes[1] + sizes[2]) * 2);
    for (size_t m = 0; m < 3; m++) if (!fake_cuda_reaches(l, at[m], tokens * sizes[m] * 2)) return 0;
    return 1;
}

struct task {
    enum layout from_layout, to_layout;
    half *from[3], *to[3];
    const half *bias; /* or NULL */
    size_t heads, width, value_width, tokens;
    const int32_t *offset; /* only PADDED: the place of each token, then those of the padding */
};

static void lay_out(const struct launch *l, const struct task *k) {
    const int padded = k->to_layout == PADDED;
    const size_t length = padded ? l->grid.x : 0, slots = padded ? length * l->grid.y : k->tokens;
    const size_t sizes[3] = {k->heads * k->width, k->heads * k->width, k->heads * k->value_width};
    if (!reaches_all(l, k->from_layout, k->from, k->tokens, sizes)) return;
    if (!reaches_all(l, k->to_layout, k->to, slots, sizes)) return;
    if (k->bias && !fake_cuda_reaches(l, k->bias, (sizes[0] + sizes[1] + sizes[2]) * 2)) return;
    if (padded && !fake_cuda_reaches(l, k->offset, slots * 4)) return;
    const struct three from = three_of(k->from_layout, k->from, k->heads, k->width, k->value_width, length);
    const struct three to = three_of(k->to_layout, k->to, k->heads, k->width, k->value_width, length);
    for (size_t m = 0, begin = 0; m < 3; begin += sizes[m++]) {
        const half *bias = k->bias ? k->bias + begin : NULL;
        for (size_t t = 0; t < slots; t++) {
            size_t row = t * to.row[m];
            if (padded) {
                const size_t place = (size_t)k->offset[t];
                if (place >= slots) {
                    fake_cuda_alarm("FAULT %s: token %zu belongs to place %d of %zu", l->name, t, k->offset[t], slots);
                    fake_cuda_fail(ILLEGAL_ADDRESS);
                    return;
                }
                row = (place / length * k->heads * length + place % length) * to.row[m];
            }
            for (size_t i = 0; i < sizes[m]; i++) { /* a padding token gets only the bias */
                const size_t n = i / from.width[m], h = i % from.width[m];
                const float x = t < k->tokens ? from_half(from.at[m][t * from.row[m] + n * from.head[m] + h]) : 0;
                to.at[m][row + n * to.head[m] + h] = to_half(x + (bias ? from_half(bias[i]) : 0));
            }
        }
    }
}

/* One kernel for each pair of layouts, encoded in kind; they determine the arguments. */
#define KIND(from, to) ((from) << 4 | (to))

static void by_kind(const struct launch *l) {
    struct task k = {.from_layout = (enum layout)(l->kind >> 4), .to_layout = (enum layout)(l->kind & 15)};
    const size_t lane = lanes(l->name);
    size_t i = 0;
    for (size_t m = 0; m < (k.from_layout == APART ? 3 : 1); m++) k.from[m] = ARG(l, i++, half *);
    k.bias = ARG(l, i++, const half *);
    k.heads = COUNT(l, i++);
    k.width = COUNT(l, i++) * lane;
    k.value_width = COUNT(l, i++) * lane;
    for (size_t m = 0; m < (k.to_layout == TNMH ? 1 : 3); m++) k.to[m] = ARG(l, i++, half *);
    if (k.to_layout == PADDED) k.offset = ARG(l, i++, const int32_t *);
    k.tokens = COUNT(l, i);
    lay_out(l, &k);
}

/* PackedAttention's variants have fewer arguments: this one gets the width of all heads, */
static void apart_of_all_heads(const struct launch *l) {
    const size_t lane = lanes(l->name);
    lay_out(l, &(struct task){
        .from_layout = TMNH,
        .to_layout = APART,
        .from = {ARG(l, 0, half *)},
        .bias = ARG(l, 1, const half *),
        .heads = 1,
        .width = COUNT(l, 2) * lane,
        .value_width = COUNT(l, 3) * lane,
        .to = {ARG(l, 4, half *), ARG(l, 5, half *), ARG(l, 6, half *)},
        .tokens = COUNT(l, 7),
    });
}

/* and this one neither the width of the values nor the number of tokens. */
static void together_of_one_width(const struct launch *l) {
    const size_t width = COUNT(l, 3) * lanes(l->name);
    lay_out(l, &(struct task){
        .from_layout = TMNH,
        .to_layout = TNMH,
        .from = {ARG(l, 0, half *)},
        .bias = ARG(l, 1, const half *),
        .heads = COUNT(l, 2),
        .width = width,
        .value_width = width,
        .to = {ARG(l, 4, half *)},
        .tokens = l->grid.x,
    });
}

/* ---- before an unfused attention: check that every token has a place within the padded texts ---- */
static void validate_offsets(const struct launch *l) {
    const int32_t *offset = ARG(l, 0, const int32_t *), places = ARG(l, 1, int32_t);
    int32_t *invalid = ARG(l, 2, int32_t *);
    if (!fake_cuda_reaches(l, offset, (size_t)places * 4) || !fake_cuda_reaches(l, invalid, 4)) return;
    for (int32_t i = 0; i < places; i++) if (offset[i] < 0 || offset[i] >= places) *invalid = 1;
}

/* ---- after it: B N S H to T N H, by the tokens' places; kind: bytes of an element ---- */
static void padded_to_packed(const struct launch *l) {
    char *to = ARG(l, 0, char *);
    const char *from = ARG(l, 1, const char *);
    const int32_t *offset = ARG(l, 2, const int32_t *);
    const size_t batch = COUNT(l, 3), length = COUNT(l, 4), heads = COUNT(l, 5);
    const size_t head = COUNT(l, 6) * (size_t)l->kind;
    if (!fake_cuda_reaches(l, from, batch * length * heads * head)) return;
    if (!fake_cuda_reaches(l, to, l->grid.x * heads * head)) return;
    for (size_t t = 0; t < l->grid.x; t++)
        for (size_t n = 0; n < heads; n++) {
            const size_t b = (size_t)offset[t] / length, s = (size_t)offset[t] % length;
            memcpy(to + (t * heads + n) * head, from + ((b * heads + n) * length + s) * head, head);
        }
}

const struct emulated packed_kernels[] = {
    HALVES("32AddBiasTransposeQKVPackedCutlass", "PKT_S?_iiPS?_S?_S?_i", "ppiipppi", apart_of_all_heads, 0),
    HALVES("28AddBiasTransposeQKVPackedTRT", "PKT_S?_iiPS?_", "ppiip", together_of_one_width, 0),
    HALVES("25AddBiasTransposeQKVPacked", "PKT_S?_iiiPS?_S?_S?_PKii", "ppiiippppi", by_kind, KIND(TMNH, PADDED)),
    HALVES("17AddBias_TN3H_TN3H", "PKT_S?_iiiPS?_i", "ppiiipi", by_kind, KIND(TNMH, TNMH)),
    HALVES("22TransposeQKV_TN3H_3TNH", "PKT_S?_iiiPS?_S?_S?_i", "ppiiipppi", by_kind, KIND(TNMH, APART)),
    HALVES("23TransposeQKV_TN3H_3BNSH", "PKT_S?_iiiPS?_S?_S?_PKii", "ppiiippppi", by_kind, KIND(TNMH, PADDED)),
    HALVES("21TransposeQKV_TNH_TN3H", "PKT_S?_S?_S?_iiiPS?_i", "ppppiiipi", by_kind, KIND(APART, TNMH)),
    HALVES("21TransposeQKV_TNH_3TNH", "PKT_S?_S?_S?_iiiPS?_S?_S?_i", "ppppiiipppi", by_kind, KIND(APART, APART)),
    HALVES("22TransposeQKV_TNH_3BNSH", "PKT_S?_S?_S?_iiiPS?_S?_S?_PKii", "ppppiiippppi", by_kind, KIND(APART, PADDED)),
    {"25ValidateTokenOffsetKernelE", "pip", validate_offsets, 0},
    {"22TransposeRemovePaddingI4int4", "pppiiii", padded_to_packed, 16},
    {"22TransposeRemovePaddingIl", "pppiiii", padded_to_packed, 8},
    {"22TransposeRemovePaddingIi", "pppiiii", padded_to_packed, 4},
    {"22TransposeRemovePaddingIs", "pppiiii", padded_to_packed, 2},
    {0},
};
