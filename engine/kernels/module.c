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

PyMODINIT_FUNC JOIN(PyInit_, MODULE)(void) {
    PyObject *made = PyModule_Create(&module);
#ifdef Py_GIL_DISABLED /* else an import would turn the lock on again */
    if (made) PyUnstable_Module_SetGIL(made, Py_MOD_GIL_NOT_USED);
#endif
    return made;
}
#else
typedef int empty;
#endif
