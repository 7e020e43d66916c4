/* Streams, events, and CUDA graphs. Only copies and fills are work: on a stream they run at once; while the stream captures,
   they are stored with their arguments and run at each replay.

   Captures are global, as ONNX Runtime begins them: an allocation, a synchronous copy or a synchronization spoils every capture
   in progress, from whichever thread it comes. */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    work *run;
    char payload[] __attribute__((aligned(16)));
};

struct graph {
    struct node *first, **end;
    size_t holders; /* holders: a graph and what was instantiated from it share the nodes */
    int spoiled;
};

struct stream {
    struct stream *next;
    struct graph *capture;
};

static struct stream *streams, none; /* none: the default stream */
static unsigned captures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct stream *known(void *handle) {
    for (struct stream *s = streams; s; s = s->next) if (s == handle) return s;
    return &none; /* 0, and the handles 1 and 2 that stand for the default stream */
}

static void let_go(struct graph *g) {
    if (!g || --g->holders) return;
    for (struct node *n = g->first, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(g);
}

API int fake_cuda_forbidden(const char *what) {
    pthread_mutex_lock(&lock);
    const unsigned under_way = captures;
    for (struct stream *s = streams; s && under_way; s = s->next) if (s->capture) s->capture->spoiled = 1;
    pthread_mutex_unlock(&lock);
    if (under_way) fake_cuda_trace("SPOILED %s", what);
    return under_way > 0;
}

int fake_cuda_capturing(void *stream) {
    pthread_mutex_lock(&lock);
    const int answer = known(stream)->capture != NULL;
    pthread_mutex_unlock(&lock);
    return answer;
}

API const char *fake_cuda_suffix(void *stream) { return fake_cuda_capturing(stream) ? " captured" : ""; }

int fake_cuda_enqueue(void *stream, work *run, const void *payload, size_t size) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    pthread_mutex_lock(&lock);
    struct graph *g = known(stream)->capture;
    if (!g) {
        pthread_mutex_unlock(&lock);
        run((void *)payload);
        return OK;
    }
    struct node *n = malloc(sizeof *n + size);
    const int code = g->spoiled ? CAPTURE_INVALIDATED : n ? OK : NO_MEMORY;
    if (code == OK) {
        n->next = NULL;
        n->run = run;
        memcpy(n->payload, payload, size);
        *g->end = n;
        g->end = &n->next;
    } else {
        free(n);
    }
    pthread_mutex_unlock(&lock);
    return code == OK ? OK : fake_cuda_fail(code);
}

static void nothing(void *payload) {}
API int fake_cuda_compute_nothing(void *stream) { return fake_cuda_enqueue(stream, nothing, "", 0); }

API int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return fake_cuda_fail(NO_MEMORY);
    pthread_mutex_lock(&lock);
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&lock);
    *stream = s;
    return OK;
}
API int cudaStreamCreate(void **stream) { return cudaStreamCreateWithFlags(stream, 0); }

API int cudaStreamDestroy(void *stream) {
    pthread_mutex_lock(&lock);
    for (struct stream **s = &streams; *s; s = &(*s)->next) {
        if (*s != stream) continue;
        struct stream *gone = *s;
        *s = gone->next;
        if (gone->capture) captures--, let_go(gone->capture);
        free(gone);
        break;
    }
    pthread_mutex_unlock(&lock);
    return OK;
}

API int cudaStreamSynchronize(void *stream) {
    return fake_cuda_forbidden("cudaStreamSynchronize") ? fake_cuda_fail(CAPTURE_UNSUPPORTED) : fake_cuda_ready();
}
API int cudaDeviceSynchronize(void) {
    return fake_cuda_forbidden("cudaDeviceSynchronize") ? fake_cuda_fail(CAPTURE_UNSUPPORTED) : fake_cuda_ready();
}

API int cudaStreamBeginCapture(void *stream, int mode) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    pthread_mutex_lock(&lock);
    struct stream *s = known(stream);
    struct graph *g = s == &none || s->capture ? NULL : calloc(1, sizeof *g);
    if (g) {
        g->end = &g->first;
        g->holders = 1;
        s->capture = g;
        captures++;
    }
    pthread_mutex_unlock(&lock);
    if (!g) return fake_cuda_fail(s == &none ? CAPTURE_UNSUPPORTED : INVALID_VALUE);
    fake_cuda_trace("CAPTURE begin mode %d", mode);
    return OK;
}

API int cudaStreamIsCapturing(void *stream, int *status) {
    pthread_mutex_lock(&lock);
    const struct graph *g = known(stream)->capture;
    *status = !g ? 0 : g->spoiled ? 2 : 1; /* none, active, invalidated */
    pthread_mutex_unlock(&lock);
    return OK;
}

API int cudaStreamEndCapture(void *stream, void **graph) {
    pthread_mutex_lock(&lock);
    struct stream *s = known(stream);
    struct graph *g = s->capture;
    s->capture = NULL;
    if (g) captures--;
    const int spoiled = g && g->spoiled;
    if (spoiled) let_go(g);
    pthread_mutex_unlock(&lock);
    *graph = spoiled ? NULL : g;
    if (!g) return fake_cuda_fail(CAPTURE_UNMATCHED);
    fake_cuda_trace("CAPTURE end%s", spoiled ? " spoiled" : "");
    return spoiled ? fake_cuda_fail(CAPTURE_INVALIDATED) : OK;
}

API int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
    if (!graph) return fake_cuda_fail(INVALID_VALUE);
    pthread_mutex_lock(&lock);
    ((struct graph *)graph)->holders++;
    pthread_mutex_unlock(&lock);
    *executable = graph;
    return OK;
}

API int cudaGraphDestroy(void *graph) {
    pthread_mutex_lock(&lock);
    let_go(graph);
    pthread_mutex_unlock(&lock);
    return OK;
}
API int cudaGraphExecDestroy(void *executable) { return cudaGraphDestroy(executable); }

API int cudaGraphLaunch(void *executable, void *stream) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    if (fake_cuda_capturing(stream)) return fake_cuda_fail(NOT_SUPPORTED); /* a graph in a graph: not needed here */
    fake_cuda_trace("REPLAY");
    for (const struct node *n = ((struct graph *)executable)->first; n; n = n->next) n->run((void *)n->payload);
    return OK;
}

/* All work has finished when its call returns, so events do nothing. */
API int cudaEventCreateWithFlags(void **event, unsigned flags) { return *event = malloc(1), OK; }
API int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
API int cudaEventDestroy(void *event) { return free(event), OK; }
API int cudaEventRecord(void *event, void *stream) { return OK; }
API int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}
API int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { return cudaEventRecord(event, stream); }
API int cudaEventElapsedTime(float *ms, void *a, void *b) { return *ms = 1, OK; }
API int cudaEventSynchronize(void *event) {
    return fake_cuda_forbidden("cudaEventSynchronize") ? fake_cuda_fail(CAPTURE_UNSUPPORTED) : fake_cuda_ready();
}
