"""Models of one node, an operator of the domain fusedbert: as a kernel, at any level, and as the function in a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fusedbert.engine import kernels as cpu_kernels
from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.operators import DOMAIN, functions

Array = NDArray[Any]
TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int64): 7}
FUNCTIONS = "onnxruntime"  # the level without kernels


# Texts, queries, keys, heads, width of a head, and the length of each text.
ATTENTIONS = [
    (1, 1, 1, 1, 16, [1]),
    (1, 16, 16, 2, 64, [16]),
    (3, 17, 17, 12, 32, [17, 1, 9]),  # padded
    (2, 33, 33, 3, 48, [33, 20]),
    (2, 1, 40, 4, 64, [40, 7]),  # one query, as in the last layer
    (1, 130, 130, 1, 80, [129]),
    (4, 5, 5, 4, 16, [5, 5, 2, 3]),  # as many texts as heads
]


def attend(q: Array, k: Array, v: Array, heads: int, lengths: list[int]) -> Array:
    """Return softmax(q k^T) v for each head in float64, ``[batch, queries, hidden]``, over the keys within each length."""
    batch, queries, hidden = q.shape
    split = (x.reshape(batch, -1, heads, hidden // heads).transpose(0, 2, 1, 3).astype(np.float64) for x in (q, k, v))
    by_head_q, by_head_k, by_head_v = split
    scores = by_head_q @ by_head_k.transpose(0, 1, 3, 2)  # [batch, heads, queries, keys]
    for row, length in enumerate(lengths):
        scores[row, :, :, length:] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray((weights @ by_head_v).transpose(0, 2, 1, 3).reshape(batch, queries, hidden))


def normalize(total: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Return the layer normalization over the last axis in float64."""
    centred = total - total.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta)


def levels(operation: str) -> list[str]:
    """List the levels that this processor runs with a kernel for an operation."""
    found = getattr(cpu_kernels.loaded(), "levels", ())
    return [level.name for level in found if not level.lacking and operation in level.operations]


@dataclasses.dataclass(frozen=True)
class Operator:
    """A model of one node.

    In a session's inputs and outputs a bfloat16 is a float32; a constant is bfloat16 if it is uint16, its bits.

    Attributes:
        name: Of the operator.
        operands: In the node's order; one that is None is left out.
        inputs: Names of the operands that are inputs of a run; the others are constants of the model.
        outputs: Their types.
        attributes: Of the node.
        kernels: Its set.
        narrow: Names of the inputs and outputs that are bfloat16.
        functions: Its definition, unless it has but one.
    """

    name: str
    operands: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: dict[str, type]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    kernels: Kernels = Kernels.INT8
    narrow: frozenset[str] = frozenset()
    functions: tuple[Any, ...] = ()

    def open(self, *, kernels: str, threads: int = 2) -> onnxruntime.InferenceSession:
        """Open a session at a level of the kernels."""
        info = helper.make_tensor_value_info
        declared = [info(n, TYPES[self.operands[n].dtype], [None] * self.operands[n].ndim) for n in self.inputs]
        outputs = [info(n, TYPES[np.dtype(dtype)], None) for n, dtype in self.outputs.items()]
        there = {n: array for n, array in self.operands.items() if array is not None}
        constants = [_constant(n, array) for n, array in there.items() if n not in self.inputs]
        given = [n if n in there else "" for n in self.operands]
        ins, outs = ([f"{n}/16" if n in self.narrow else n for n in names] for names in (given, self.outputs))
        node = helper.make_node(self.name, ins, outs, domain=DOMAIN, **self.attributes)
        narrowed = [helper.make_node("Cast", [n], [f"{n}/16"], to=16) for n in self.inputs if n in self.narrow]
        widened = [helper.make_node("Cast", [f"{n}/16"], [n], to=1) for n in self.outputs if n in self.narrow]
        opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid(DOMAIN, 1)]
        graph = helper.make_graph([*narrowed, node, *widened], "one", declared, outputs, constants)
        defined = self.functions or functions(self.name)
        model = helper.make_model(graph, opset_imports=opsets, functions=defined, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        cpu_kernels.register(options, {cpu_kernels.SWITCH: kernels}, self.kernels)
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, changed: Mapping[str, Array] = {}, /, *, kernels: str, threads: int = 2) -> list[Array]:
        """Run it once, with some operands changed."""
        feeds = {name: changed.get(name, self.operands[name]) for name in self.inputs}
        return [np.asarray(output) for output in self.open(kernels=kernels, threads=threads).run(None, feeds)]


def _constant(name: str, array: Array) -> Any:
    if array.dtype != np.uint16:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.tobytes(), raw=True)
