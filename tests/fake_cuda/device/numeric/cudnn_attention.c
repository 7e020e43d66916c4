/* Attention as a graph of cuDNN's operations: a product of queries and keys, a scale, a mask of rows and of columns by lengths,
   a softmax, and a product with the values. Any other graph is refused.

   Rows of queries beyond their text's length are left unwritten: cuDNN promises nothing for them, so they must not be read. */
#include "numeric.h"
#include "../runtime/cudnn.h"
#include "../runtime/fake_cuda.h"

#include <string.h>

static const struct descriptor *part(const struct descriptor *d, int name) {
    const struct attribute *a = attribute_of(d, name);
    return a ? *(const struct descriptor *const *)a->values : NULL;
}

static int read_side(const struct descriptor *tensor, struct side *s) {
    if (!tensor) return 0;
    const struct attribute *sizes = attribute_of(tensor, TENSOR_SIZES), *steps = attribute_of(tensor, TENSOR_STEPS);
    if (!sizes || !steps || sizes->count != 4 || steps->count != 4) return 0;
    if (number(tensor, TENSOR_DATA_TYPE, -1) != DATA_HALF) return 0;
    s->uid = number(tensor, TENSOR_UID, 0);
    memcpy(s->sizes, sizes->values, sizeof s->sizes);
    memcpy(s->steps, steps->values, sizeof s->steps);
    return 1;
}

/* The axis whose indices a tensor holds (2: rows, 3: columns), or -1; they come from an operation that generates indices. */
static int64_t axis_of(const struct descriptor *const *operations, int64_t count, const struct descriptor *tensor) {
    for (int64_t i = 0; i < count; i++) {
        const struct descriptor *o = operations[i];
        if (o->type != POINTWISE_OPERATION || part(o, OPERATION_Y) != tensor) continue;
        return o->axis;
    }
    return -1;
}

void understand(struct descriptor *graph) {
    const struct attribute *all = attribute_of(graph, GRAPH_OPERATIONS);
    const struct descriptor *const *operations = all ? (const struct descriptor *const *)all->values : NULL;
    const int64_t count = all ? all->count : 0;
    struct attention_plan p = {0};
    const struct descriptor *products[2], *odd = NULL;
    int found = 0;
    for (int64_t i = 0; i < count; i++)
        if (operations[i]->type == MATMUL_OPERATION && found++ < 2) products[found - 1] = operations[i];
    if (found != 2) return;
    if (!read_side(part(products[0], MATMUL_A), &p.q) || !read_side(part(products[0], MATMUL_B), &p.k) ||
        !read_side(part(products[1], MATMUL_B), &p.v) || !read_side(part(products[1], MATMUL_C), &p.o))
        return;
    for (int64_t i = 0; i < count; i++) {
        const struct descriptor *o = operations[i], *b = part(o, OPERATION_B);
        if (o->type != POINTWISE_OPERATION || !b || number(b, TENSOR_VIRTUAL, 0)) continue;
        const int64_t type = number(b, TENSOR_DATA_TYPE, -1), axis = axis_of(operations, count, part(o, OPERATION_X));
        if (number(b, TENSOR_BY_VALUE, 0)) { /* the scale; and what masked scores become, which is taken to be minus infinity */
            if (part(o, OPERATION_X) == part(products[0], MATMUL_C) && type == DATA_FLOAT && o->mode == MODE_MUL)
                p.scale = number(b, TENSOR_UID, 0);
        } else if (type == DATA_INT32 && axis == 2) {
            p.query_lengths = number(b, TENSOR_UID, 0);
        } else if (type == DATA_INT32 && axis == 3) {
            p.key_lengths = number(b, TENSOR_UID, 0);
        } else {
            odd = b;
        }
    }
    p.known = p.scale && !odd && p.q.steps[3] == 1 && p.k.steps[2] == 1 && p.v.steps[3] == 1 && p.o.steps[3] == 1;
    graph->plan = p;
}

struct cudnn_run {
    struct attention_plan plan;
    half *q, *k, *v, *o;
    const int32_t *query_lengths, *key_lengths;
    float scale;
};

static size_t extent(const struct side *s, size_t rows, int row_axis) { /* bytes of one head's rows */
    return rows ? ((rows - 1) * (size_t)s->steps[row_axis] + (size_t)s->sizes[5 - row_axis]) * sizeof(half) : 0;
}

static void head(void *context, size_t i) {
    const struct cudnn_run *r = context;
    const struct attention_plan *p = &r->plan;
    const int64_t heads = p->q.sizes[1], b = (int64_t)i / heads, n = (int64_t)i % heads, kept = n * p->k.sizes[1] / heads;
    const int64_t queries = r->query_lengths ? r->query_lengths[b] : p->q.sizes[2];
    const int64_t keys = r->key_lengths ? r->key_lengths[b] : p->k.sizes[3];
    if (queries < 0 || keys < 0 || queries > p->q.sizes[2] || keys > p->k.sizes[3]) {
        fake_cuda_alarm("FAULT cudnnBackendExecute: text %lld has %lld queries and %lld keys", (long long)b, (long long)queries,
                        (long long)keys);
        fake_cuda_fail(ILLEGAL_ADDRESS);
        return;
    }
    const struct attention a = {
        .q = r->q + b * p->q.steps[0] + n * p->q.steps[1],
        .k = r->k + b * p->k.steps[0] + kept * p->k.steps[1],
        .v = r->v + b * p->v.steps[0] + kept * p->v.steps[1],
        .o = r->o + b * p->o.steps[0] + n * p->o.steps[1],
        .q_step = (size_t)p->q.steps[2],
        .k_step = (size_t)p->k.steps[3],
        .v_step = (size_t)p->v.steps[2],
        .o_step = (size_t)p->o.steps[2],
        .queries = (size_t)queries,
        .keys = (size_t)keys,
        .width = (size_t)p->q.sizes[3],
        .value_width = (size_t)p->v.sizes[3],
        .scale = r->scale,
    };
    if (!fake_cuda_holds(a.q, extent(&p->q, a.queries, 2)) || !fake_cuda_holds(a.k, extent(&p->k, a.keys, 3)) ||
        !fake_cuda_holds(a.v, extent(&p->v, a.keys, 2)) || !fake_cuda_holds(a.o, extent(&p->o, a.queries, 2))) {
        fake_cuda_alarm("FAULT cudnnBackendExecute reaches outside the device's memory");
        fake_cuda_fail(ILLEGAL_ADDRESS);
        return;
    }
    attend(&a);
}

static void run(void *payload) {
    const struct cudnn_run *r = payload;
    fake_cuda_in_parallel((size_t)(r->plan.q.sizes[0] * r->plan.q.sizes[1]), head, payload);
}

int run_attention(void *stream, const struct attention_plan *plan, const struct descriptor *pack) {
    const struct attribute *uids = attribute_of(pack, PACK_UIDS), *pointers = attribute_of(pack, PACK_POINTERS);
    if (!plan->known || !uids || !pointers) {
        fake_cuda_alarm("UNKNOWN cuDNN graph: it is not the attention that is computed here");
        return CUDNN_UNSUPPORTED;
    }
    struct cudnn_run r = {.plan = *plan};
    for (int64_t i = 0; i < uids->count && i < pointers->count; i++) {
        const int64_t uid = ((const int64_t *)uids->values)[i];
        void *at = ((void *const *)pointers->values)[i];
        if (uid == plan->q.uid) r.q = at;
        if (uid == plan->k.uid) r.k = at;
        if (uid == plan->v.uid) r.v = at;
        if (uid == plan->o.uid) r.o = at;
        if (uid == plan->scale) r.scale = *(const float *)at; /* by value: read now, not when it runs */
        if (plan->query_lengths && uid == plan->query_lengths) r.query_lengths = at;
        if (plan->key_lengths && uid == plan->key_lengths) r.key_lengths = at;
    }
    return fake_cuda_enqueue(stream, run, &r, sizeof r) ? CUDNN_FAILED : CUDNN_OK;
}
