/* The Windows library's own functions, on the random operations of fuzz.c. Argument: the DLL. zig builds this, with reference.c. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#include "../../engine/kernels/levels.h"

/* Aligned memory has functions of its own here. */
#define malloc(size) _aligned_malloc(size, 16)
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define free _aligned_free

/* What fuzz.c reads comes from the DLL. */
static const struct level *levels;
static unsigned (*features)(void);
#define LEVELS levels
#define cpu_features features
#define main fuzz
#include "../engine/kernels/fuzz.c"
#undef main

int main(int argc, char **argv) {
    HMODULE library = argc == 2 ? LoadLibraryA(argv[1]) : NULL;
    if (!library) return printf("not loaded: error %lu\n", GetLastError()), 1;
    const struct level *(*table)(void) = (const struct level *(*)(void))(void *)GetProcAddress(library, "fusedbert_levels");
    features = (unsigned (*)(void))(void *)GetProcAddress(library, "fusedbert_features");
    if (!table || !features || !GetProcAddress(library, "RegisterCustomOps")) return printf("a function is missing\n"), 1;
    levels = table();
    return fuzz();
}
