/* An empty Python module, so that code that imports every module of a package can import a library of kernels too. The library
 * is for ONNX Runtime: ort/. Where Python's headers are not installed it is built without the module. */
#if __has_include(<Python.h>)
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define JOIN_OF(prefix, name) prefix##name
#define JOIN(prefix, name) JOIN_OF(prefix, name)

/* MODULE, the module's name, is a macro of pyproject.toml. */
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, TEXT(MODULE), "A library for ONNX Runtime: see fusedbert.engine.kernels.", -1,
};

PyMODINIT_FUNC JOIN(PyInit_, MODULE)(void) { return PyModule_Create(&module); }
#else
typedef int empty;
#endif
