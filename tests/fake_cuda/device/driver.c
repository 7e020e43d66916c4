/* The driver's library: modules of kernels by name, used for TensorRT's attention, and properties of the device, which cuDNN
   reads. The provider finds these functions by name (cudaGetDriverEntryPointByVersion) or opens the library itself. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"

int cudaDeviceGetAttribute(int *value, int attribute, int device);
int cudaDriverGetVersion(int *version);
const char *cudaGetErrorName(int code);
const char *cudaGetErrorString(int code);

API int cuInit(unsigned flags) { return fake_cuda_ready(); }
API int cuDriverGetVersion(int *version) { return cudaDriverGetVersion(version); }
API int cuDeviceGetAttribute(int *value, int attribute, int device) { return cudaDeviceGetAttribute(value, attribute, device); }
API int cuGetErrorName(int code, const char **text) { return *text = cudaGetErrorName(code), OK; }
API int cuGetErrorString(int code, const char **text) { return *text = cudaGetErrorString(code), OK; }

API int cuModuleLoadData(void **module, const void *code) { return *module = malloc(1), OK; }
API int cuModuleUnload(void *module) { return free(module), OK; }

API int cuModuleGetFunction(void **function, void *module, const char *name) { /* never freed */
    char *text;
    if (asprintf(&text, "driver:%s", name) < 0) return NO_MEMORY;
    return *function = text, OK;
}

API int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared, void *stream, void **args, void **more) {
    return fake_cuda_launch(function, (struct dim){gx, gy, gz}, (struct dim){bx, by, bz}, stream);
}

SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig)

NOT_EMULATED(cuLaunchCooperativeKernel, NOT_SUPPORTED)
NOT_EMULATED(cuLinkAddData_v2, NOT_SUPPORTED)
NOT_EMULATED(cuLinkAddFile_v2, NOT_SUPPORTED)
NOT_EMULATED(cuLinkComplete, NOT_SUPPORTED)
NOT_EMULATED(cuLinkCreate_v2, NOT_SUPPORTED)
NOT_EMULATED(cuLinkDestroy, NOT_SUPPORTED)
NOT_EMULATED(cuModuleGetGlobal_v2, NOT_SUPPORTED)
NOT_EMULATED(cuTensorMapEncodeTiled, NOT_SUPPORTED)
