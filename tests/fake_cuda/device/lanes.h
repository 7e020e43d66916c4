/* Kernels that move float16 one, two or four at once, as a head's width allows. */
#pragma once

#include <stddef.h>
#include <string.h>

/* Numbers that an element of the kernel's type holds; the sizes it is told count elements. */
static inline size_t lanes(const char *name) { return strstr(name, "5Half4E") ? 4 : strstr(name, "I7__half2") ? 2 : 1; }

/* A table's entries for all three, and for float16 alone. The parameters' types tell siblings of one name apart: `i` is a
   number, `PKT_` an address of what is read, `P` of what is written, `S` and a digit a type that came before. */
#define HALVES(name, types, parameters, compute, kind)                                                                         \
    {name "INS_4cuda5Half4EEEv" types "$", parameters, compute, kind},                                                         \
        {name "I7__half2EEv" types "$", parameters, compute, kind}, {name "I6__halfEEv" types "$", parameters, compute, kind}
