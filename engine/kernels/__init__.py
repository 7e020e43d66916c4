"""The kernels in C, for operators that ONNX Runtime's CPU provider computes slowly.

One library has two sets of custom operators (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html): those of
the int8 graph, and LayerNormalization and Gelu of the fp32 graph. A session uses a set at one level: the best that the
processor runs, or the one that is forced. The int8 graph also has its operators as functions of standard ones, for where a
kernel is missing.
"""

from .choice import DOMAIN, SWITCH, VARIABLE, choose, describe, fingerprint, register
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
    "way_out",
]
