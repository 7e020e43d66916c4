"""The kernels in C, for operators that ONNX Runtime's CPU provider computes slowly.

One library has a set of custom operators (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html) for each graph:
those of int8 and of bfloat16, and LayerNormalization and Gelu of fp32. A session uses a set at one level: the best that the
processor runs, or the one that is forced. The first two graphs also have their operators as functions of standard ones, for
where a kernel is missing.
"""

from .choice import DOMAIN, SWITCH, VARIABLE, choose, describe, fingerprint, register, runs
from .install import absence, way_out
from .levels import Kernels, Level, cpu_features, library, loaded

__all__ = [
    "DOMAIN",
    "SWITCH",
    "VARIABLE",
    "Kernels",
    "Level",
    "absence",
    "choose",
    "cpu_features",
    "describe",
    "fingerprint",
    "library",
    "loaded",
    "register",
    "runs",
    "way_out",
]
