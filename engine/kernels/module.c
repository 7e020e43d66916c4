/* An empty Python module, so that whoever imports all modules of a package can import this one; what it is for stands in ops.c
 * and standard.c. Where Python's headers are not installed the library is built without it. */
#ifndef MODULE
#define MODULE _kernels
#endif
#if __has_include(<Python.h>)
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define JOINED_OF(prefix, name) prefix##name
#define JOINED(prefix, name) JOINED_OF(prefix, name)

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, TEXT(MODULE), "A library for ONNX Runtime: see fusedbert.engine.kernels.", -1};

PyMODINIT_FUNC JOINED(PyInit_, MODULE)(void) { return PyModule_Create(&module); }
#else
typedef int empty;
#endif
