/* Properties of the device, and calls of the runtime library that do nothing here. */
#define _GNU_SOURCE
#include "fake_cuda.h"

#include <dlfcn.h>
#include <string.h>

enum { PROCESSORS = 132, REGISTERS = 65536, LEVEL2_CACHE = 50 << 20 };
enum { SHARED = 49152, SHARED_OPT_IN = 232448, SHARED_PROCESSOR = 233472 }; /* bytes: of a block, if it asks, of all */
enum { VERSION = 13000, OLD_VERSION = 12040 };

static __thread int current;

API int cudaGetDeviceCount(int *count) {
    *count = 0;
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    *count = fake_cuda_settings()->devices;
    return OK;
}

API int cudaGetDevice(int *device) {
    *device = current;
    return fake_cuda_ready();
}

API int cudaSetDevice(int device) {
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    if (device < 0 || device >= fake_cuda_settings()->devices) return fake_cuda_fail(INVALID_DEVICE);
    current = device;
    return OK;
}

API int cudaDriverGetVersion(int *version) { return *version = fake_cuda_settings()->old_driver ? OLD_VERSION : VERSION, OK; }
API int cudaRuntimeGetVersion(int *version) { return *version = VERSION, OK; }

/* cudaDeviceProp of CUDA 13 has 1008 bytes; offsets of the fields that are read: */
enum {
    PROPERTIES = 1008,
    NAME = 0,
    GLOBAL_MEMORY = 288, /* size_t */
    SHARED_PER_BLOCK = 296, /* size_t */
    REGISTERS_PER_BLOCK = 304,
    WARP = 308,
    THREADS_PER_BLOCK = 320,
    THREADS_DIM = 324, /* int[3] */
    GRID_SIZE = 336,   /* int[3] */
    CONSTANT_MEMORY = 352, /* size_t */
    MAJOR = 360,
    MINOR = 364,
    TEXTURE_ALIGNMENT = 368, /* size_t */
    PROCESSOR_COUNT = 384,
    CONCURRENT_KERNELS = 560,
    COPY_ENGINES = 584,
    UNIFIED_ADDRESSING = 588,
    LEVEL2_SIZE = 596,
    THREADS_PER_PROCESSOR = 604,
    SHARED_PER_PROCESSOR = 624, /* size_t */
    REGISTERS_PER_PROCESSOR = 632,
    MANAGED_MEMORY = 636,
    COOPERATIVE_LAUNCH = 668,
    SHARED_PER_BLOCK_OPT_IN = 672, /* size_t */
    BLOCKS_PER_PROCESSOR = 688,
    MEMORY_POOLS = 720,
};

static void put(char *at, int where, long long value, size_t size) { memcpy(at + where, &value, size); } /* little-endian */

API int cudaGetDeviceProperties(char *p, int device) {
    const struct settings *s = fake_cuda_settings();
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    if (device < 0 || device >= s->devices) return fake_cuda_fail(INVALID_DEVICE);
    memset(p, 0, PROPERTIES);
    strcpy(p + NAME, "NVIDIA Fake");
    const struct { int where; long long value; } wide[] = {
        {GLOBAL_MEMORY, (long long)s->memory},       {SHARED_PER_BLOCK, SHARED},
        {CONSTANT_MEMORY, 65536},                    {TEXTURE_ALIGNMENT, 512},
        {SHARED_PER_PROCESSOR, SHARED_PROCESSOR},    {SHARED_PER_BLOCK_OPT_IN, SHARED_OPT_IN},
    };
    const struct { int where, value; } narrow[] = {
        {REGISTERS_PER_BLOCK, REGISTERS},     {WARP, 32},
        {THREADS_PER_BLOCK, 1024},            {THREADS_DIM, 1024},
        {THREADS_DIM + 4, 1024},              {THREADS_DIM + 8, 64},
        {GRID_SIZE, 0x7fffffff},              {GRID_SIZE + 4, 65535},
        {GRID_SIZE + 8, 65535},               {MAJOR, s->capability / 10},
        {MINOR, s->capability % 10},          {PROCESSOR_COUNT, PROCESSORS},
        {CONCURRENT_KERNELS, 1},              {COPY_ENGINES, 3},
        {UNIFIED_ADDRESSING, 1},              {LEVEL2_SIZE, LEVEL2_CACHE},
        {THREADS_PER_PROCESSOR, 2048},        {REGISTERS_PER_PROCESSOR, REGISTERS},
        {MANAGED_MEMORY, 1},                  {COOPERATIVE_LAUNCH, 1},
        {BLOCKS_PER_PROCESSOR, 32},           {MEMORY_POOLS, 1},
    };
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) put(p, wide[i].where, wide[i].value, 8);
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) put(p, narrow[i].where, narrow[i].value, 4);
    return OK;
}

/* The same by cudaDeviceAttr, which has the numbers of the driver's CUdevice_attribute. */
API int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    const struct settings *s = fake_cuda_settings();
    const struct { int attribute, value; } known[] = {
        {1, 1024},  {2, 1024},  {3, 1024},       {4, 64},         {5, 0x7fffffff},          {6, 65535},
        {7, 65535}, {8, SHARED}, {9, 65536},     {10, 32},        {12, REGISTERS},          {16, PROCESSORS},
        {31, 1},    {38, LEVEL2_CACHE}, {39, 2048}, {40, 3},      {41, 1},                  {75, s->capability / 10},
        {76, s->capability % 10}, {81, SHARED_PROCESSOR}, {82, REGISTERS}, {83, 1}, {95, 1}, {97, SHARED_OPT_IN},
        {106, 32},  {115, 1},
    };
    const int unready = fake_cuda_ready();
    if (unready) return unready;
    if (device < 0 || device >= s->devices) return fake_cuda_fail(INVALID_DEVICE);
    *value = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) if (known[i].attribute == attribute) *value = known[i].value;
    return OK;
}

/* cudaFuncAttributes of CUDA 13 is 144 bytes. */
API int cudaFuncGetAttributes(char *a, const void *function) {
    const int capability = fake_cuda_settings()->capability;
    memset(a, 0, 144);
    put(a, 24, 1024, 4);       /* threads a block */
    put(a, 28, 64, 4);         /* registers a thread */
    put(a, 32, capability, 4); /* of the intermediate code */
    put(a, 36, capability, 4); /* of the machine code */
    put(a, 44, SHARED, 4);     /* dynamic shared memory at most */
    return OK;
}
API int cudaFuncSetAttribute(const void *f, int name, int value) { return OK; }
API int cudaKernelSetAttributeForDevice(void *kernel, int name, int value, int device) {
    return OK;
}
API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared,
                                                               unsigned flags) {
    return *n = 2, OK;
}

API int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                         int *result) {
    *function = dlsym(RTLD_DEFAULT, name);
    fake_cuda_trace("ENTRY %s %s", name, *function ? "found" : "not found");
    if (result) *result = *function ? 0 : 1;
    return OK;
}

API int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset, int kind) {
    fake_cuda_alarm("UNKNOWN cudaMemcpyFromSymbol: variables of the device are not kept");
    return fake_cuda_fail(NOT_SUPPORTED);
}
