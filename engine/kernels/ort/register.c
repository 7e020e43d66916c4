/* The registration of a set of operators, at one level, with a session's options. */
#include <stdatomic.h>

#include "custom_op.h"

/* The operators of each set, up to NULL; an int8 graph may have feed-forwards in bfloat16. */
static const struct custom_ops *const CUSTOM_OPS[SETS][4] = {[INT8_OPERATORS] = {&CUSTOM_INT8, &CUSTOM_BF16, &CUSTOM_SHARED},
                                                             [BF16_OPERATORS] = {&CUSTOM_BF16, &CUSTOM_SHARED},
                                                             [FP32_OPERATORS] = {&CUSTOM_FP32},
                                                             [INT8_POSITIONS] = {&CUSTOM_INT8, &CUSTOM_BF16, &CUSTOM_SHARED}};

/* What RegisterCustomOps gives the next session of this thread, as it has no argument for that. */
static _Thread_local struct {
    int chosen;
    enum operators set;
    size_t level;
} next;

EXPORT void fusedbert_use(int set, size_t level) {
    next.chosen = 1, next.set = (enum operators)set, next.level = level;
}

/* Fill a domain with the operators that a level has kernels for. Each remembers the level. */
static OrtStatus *fill(const OrtApi *ort, OrtCustomOpDomain *domain, const struct custom_ops *const *sets,
                       const struct level *level, struct custom_op *ops) {
    for (; *sets; sets++)
        for (size_t i = 0; i < (*sets)->count; i++, ops++) {
            *ops = (*sets)->ops[i];
            ops->level = level;
            if (level_has(level, ops->needs)) TRY(CustomOpDomain_Add(domain, &ops->op));
        }
    return NULL;
}

/* Get the domain of a set and a level. It lives as long as the process, because sessions refer to it; threads may race to
 * create it, and one domain is kept. */
static OrtStatus *domain_of(const OrtApi *ort, enum operators set, size_t level, OrtCustomOpDomain **domain) {
    static _Atomic(OrtCustomOpDomain *) domains[SETS][MAX_LEVELS];
    const struct custom_ops *const *const sets = CUSTOM_OPS[set];
    OrtCustomOpDomain *created;
    size_t count = 0;
    *domain = atomic_load(&domains[set][level]);
    if (*domain) return NULL;
    for (size_t i = 0; sets[i]; i++) count += sets[i]->count;
    struct custom_op *ops = malloc(count * sizeof *ops);
    if (!ops) return CreateStatus(ORT_FAIL, "out of memory");
    OrtStatus *status = CreateCustomOpDomain(sets[0]->domain, &created);
    if (!status) {
        status = fill(ort, created, sets, &LEVELS[level], ops);
        if (!status && atomic_compare_exchange_strong(&domains[set][level], domain, created)) return *domain = created, NULL;
        ReleaseCustomOpDomain(created);
    }
    free(ops);
    return status;
}

/* Called by SessionOptions.register_custom_ops_library, right after fusedbert_use and by the same thread. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    OrtCustomOpDomain *domain;
    const OrtApi *ort = base->GetApi(ORT_VERSION);
    if (!ort || !next.chosen) return NULL; /* ONNX Runtime runs everything */
    next.chosen = 0;
    TRY(domain_of(ort, next.set, next.level, &domain));
    return AddCustomOpDomain(options, domain);
}
