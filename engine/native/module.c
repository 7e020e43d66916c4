/* An empty Python module, so that whoever imports all modules of a package can import this one; what it is for stands in ops.c.
 * Where Python's headers are not installed the library is built without it. */
#if __has_include(<Python.h>)
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", "A library for ONNX Runtime: see fusedbert.engine.native.", -1};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
#else
typedef int empty;
#endif
