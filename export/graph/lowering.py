"""Lowering: the base class of the targets, which decide what each step of the encoder becomes in ONNX.

A new target is a subclass in its own file, listed in ``fusedbert.export.variants``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from fusedbert.engine.artifact import PADDED

from ..checkpoint.architecture import IDENTITY, Architecture
from ..checkpoint.weights import Dense, Embeddings, Layer, Norm
from .builder import IR_VERSION, Graph


class Logits(NamedTuple):
    """The logits of a head, and their number."""

    value: str
    labels: int


class Lowering(abc.ABC):
    """The steps of the encoder on one target, in the order of ``bert.build``; ``x`` is the name of a tensor of the graph."""

    file: ClassVar[str]  # path in the artifact
    target: ClassVar[str]  # ``cpu`` or ``cuda``
    precision: ClassVar[str]  # ``fp32``, ``int8``, ``bf16`` or ``fp16``
    opset: ClassVar[int]  # version of the default operator set
    onnxruntime: ClassVar[str]  # the first ONNX Runtime that gives the same logits
    ir_version: ClassVar[int] = IR_VERSION  # version of the file format
    layout: ClassVar[str] = PADDED  # ``padded`` or ``packed``
    attention_ops: ClassVar[tuple[str, ...]]  # fused attention, such as ``com.microsoft:Attention``; a layer has one of them
    note: ClassVar[str | None] = None  # text of a ``FusionWarning`` about this graph
    folds_biases: ClassVar[bool] = True  # whether the biases of key and value may leave the graph, see biases.py
    output_names: ClassVar[tuple[str, ...]] = ("logits",)  # names of the outputs
    token_axes: ClassVar[Sequence[str]] = ("batch", "sequence")  # of the logits of tokens, before the labels

    def __init__(self, graph: Graph, architecture: Architecture) -> None:
        self.graph = graph
        self.architecture = architecture

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Return why a model cannot have this graph; None if it can."""
        return None

    @abc.abstractmethod
    def inputs(self) -> None:
        """Declare the graph's inputs and compute the mask."""

    @abc.abstractmethod
    def embed(self, tables: Embeddings) -> str:
        """Add up word, position and segment vectors and normalize them."""

    @abc.abstractmethod
    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Project ``x`` to the queries, keys and values of layer ``i``, and attend; only [CLS] does if ``cls_only``."""

    @abc.abstractmethod
    def cls_rows(self, x: str) -> str:
        """Take the vector of the first token of each text."""

    @abc.abstractmethod
    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """Compute ``act(x W + b)``; ``kind`` is one of ``checkpoint.architecture.KINDS``, or in the head ``IDENTITY``."""

    @abc.abstractmethod
    def dense_gated(self, name: str, x: str, weights: Dense, gate: Dense, kind: str) -> str:
        """Compute ``act(x W + b) * (x V + c)`` (GLU, Shazeer 2020); ``V`` and ``c`` are the gate's."""

    @abc.abstractmethod
    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """Compute ``x W + b + residual`` and its normalization over the last axis (Ba et al. 2016).

        Returns:
            The residual that goes on, and the normalized result; without ``pre_norm``, or if ``final``, both are the latter.
        """

    @abc.abstractmethod
    def mean_rows(self, x: str) -> str:
        """Average the vectors of each text's tokens: ``[batch, hidden]``."""

    @abc.abstractmethod
    def norm_rows(self, name: str, x: str, norm: Norm, eps: float) -> str:
        """Normalize ``[batch, width]`` in the head."""

    @abc.abstractmethod
    def token_rows(self, x: str) -> str:
        """Take the vector of each token: ``[tokens, hidden]``, or one more axis if a product takes it."""

    @abc.abstractmethod
    def classify(self, pooled: str, weights: Dense) -> Logits:
        """Compute the logits of a head in float32."""

    def output(self, heads: Sequence[Logits]) -> None:
        """Declare ``logits``, those of all heads side by side: ``[batch, labels]``, or by token ``[batch, seq, labels]``."""
        g, labels = self.graph, sum(head.labels for head in heads)
        together = heads[0].value if len(heads) == 1 else g.op("Concat", *(head.value for head in heads), axis=-1)
        axes = self.token_axes if self.architecture.by_token else ["batch"]
        g.output("logits", self.by_place_of_token(together, labels), "float32", [*axes, labels])

    def by_place_of_token(self, logits: str, labels: int) -> str:
        """Lay out the logits of tokens as the output; those of texts are."""
        return logits


def count_positions(g: Graph, ids: str, padding_id: int, dtype: str) -> str:
    """RoBERTa numbers tokens that are not padding from ``padding_id + 1`` up, padding has ``padding_id``: ``[batch, seq]``."""
    padding = g.constant(padding_id, dtype)
    real = g.cast(g.op("Not", g.op("Equal", ids, padding)), dtype)  # [batch, seq]
    return g.op("Add", g.op("Mul", g.op("CumSum", real, g.constant(1, "int64")), real), padding)


GELU_SINCE = 20  # operator set; all other operators here are in opset 17
CEILING = 10.0  # of gelu_10; its floor of -10 is never reached, since gelu stays above -0.17


def activate(g: Graph, x: str, kind: str, *, opset: int, dtype: str = "float32") -> str:
    """Add the nodes of an activation; ``kind`` is as in ``Lowering.dense_activation``, ``dtype`` the type of ``x``."""
    if kind == IDENTITY:
        return x
    if kind in ("gelu", "gelu_new") and opset >= GELU_SINCE:
        return g.op("Gelu", x, approximate="tanh") if kind == "gelu_new" else g.op("Gelu", x)
    if kind == "gelu_10":
        return clip_activation(g, activate(g, x, "gelu", opset=opset, dtype=dtype), dtype)
    return _NODES[kind](g, x, dtype)


def clip_activation(g: Graph, x: str, dtype: str) -> str:
    """Limit the output of a gelu to ``CEILING``."""
    return g.op("Min", x, g.constant(CEILING, dtype))


def _gelu(g: Graph, x: str, dtype: str) -> str:
    """``x / 2 (1 + erf(x / sqrt(2)))``, in the order that ONNX Runtime's optimizer recognizes."""
    inner = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2), dtype)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", inner, g.constant(1.0, dtype))), g.constant(0.5, dtype))


def _gelu_tanh(g: Graph, x: str, dtype: str) -> str:
    """``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``, likewise."""
    cubed = g.op("Mul", g.op("Pow", x, g.constant(3.0, dtype)), g.constant(0.044715, dtype))
    inner = g.op("Tanh", g.op("Mul", g.op("Add", x, cubed), g.constant(math.sqrt(2 / math.pi), dtype)))
    return g.op("Mul", g.op("Mul", x, g.constant(0.5, dtype)), g.op("Add", inner, g.constant(1.0, dtype)))


_NODES: Mapping[str, Callable[[Graph, str, str], str]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "relu": lambda g, x, dtype: g.op("Relu", x),
    "tanh": lambda g, x, dtype: g.op("Tanh", x),
    "silu": lambda g, x, dtype: g.op("Mul", x, g.op("Sigmoid", x)),
    "quick_gelu": lambda g, x, dtype: g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.constant(1.702, dtype)))),
    "mish": lambda g, x, dtype: g.op("Mul", x, g.op("Tanh", g.op("Softplus", x))),
}
