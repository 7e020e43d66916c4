/* Settings from the environment, the trace, and the names of errors. */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct settings settings;
static FILE *trace;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
static __thread int last_error;

static long long number(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoll(text) : otherwise;
}

static void read_environment(void) {
    settings = (struct settings){
        .capability = (int)number("FAKE_CUDA_CAPABILITY", 90),
        .devices = (int)number("FAKE_CUDA_DEVICES", 1),
        .old_driver = (int)number("FAKE_CUDA_DRIVER_TOO_OLD", 0),
        .memory = (size_t)number("FAKE_CUDA_MEMORY", 80LL << 30),
    };
    const char *file = getenv("FAKE_CUDA_TRACE");
    if (file && *file) trace = fopen(file, "a");
}

const struct settings *fake_cuda_settings(void) {
    pthread_once(&once, read_environment);
    return &settings;
}

static void write_line(FILE *file, const char *format, va_list values) {
    vfprintf(file, format, values);
    fputc('\n', file);
    fflush(file);
}

API void fake_cuda_trace(const char *format, ...) {
    fake_cuda_settings();
    if (!trace) return;
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&writing);
    write_line(trace, format, values);
    pthread_mutex_unlock(&writing);
    va_end(values);
}

API void fake_cuda_alarm(const char *format, ...) {
    fake_cuda_settings();
    va_list values;
    pthread_mutex_lock(&writing);
    if (trace) {
        va_start(values, format);
        write_line(trace, format, values);
        va_end(values);
    }
    fputs("fake CUDA: ", stderr);
    va_start(values, format);
    write_line(stderr, format, values);
    va_end(values);
    pthread_mutex_unlock(&writing);
}

API int fake_cuda_fail(int code) { return last_error = code; }

API int fake_cuda_ready(void) {
    const struct settings *s = fake_cuda_settings();
    if (s->old_driver) return fake_cuda_fail(OLD_DRIVER);
    return s->devices ? OK : fake_cuda_fail(NO_DEVICE);
}

API int cudaGetLastError(void) {
    const int code = last_error;
    last_error = OK;
    return code;
}

API int cudaPeekAtLastError(void) { return last_error; }

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {OK, "cudaSuccess", "no error"},
    {INVALID_VALUE, "cudaErrorInvalidValue", "invalid argument"},
    {NO_MEMORY, "cudaErrorMemoryAllocation", "out of memory"},
    {OLD_DRIVER, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {NO_KERNEL, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {NO_DEVICE, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {NOT_FOUND, "cudaErrorSymbolNotFound", "named symbol not found"},
    {NOT_SUPPORTED, "cudaErrorNotSupported", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {CAPTURE_UNMATCHED, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {CAPTURE_IMPLICIT, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
};
enum { ERRORS = sizeof errors / sizeof *errors };

API const char *cudaGetErrorName(int code) {
    for (int i = 0; i < ERRORS; i++) if (errors[i].code == code) return errors[i].name;
    return "cudaErrorUnknown";
}

API const char *cudaGetErrorString(int code) {
    for (int i = 0; i < ERRORS; i++) if (errors[i].code == code) return errors[i].text;
    return "unknown error";
}
