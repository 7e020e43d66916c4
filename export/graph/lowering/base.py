"""Lowerings: what each step of the encoder becomes on one target.

A target is a class with these methods, in a file of its own; ``encoder`` calls them in order. To add a target, write
its class and name it in ``fusedbert.export.targets``; no other target changes.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fusedbert.engine.artifact import PADDED, Parity

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm, Parameters
from ..builder import IR_VERSION, Graph

if TYPE_CHECKING:
    from ...parity.baseline import Progress, Subject


class Lowering(abc.ABC):
    """One target's way to say each step in ONNX. Arguments and results named ``x`` are tensors of the graph.

    Attributes:
        file: Where the graph lies in the artifact.
        target: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``int8`` or ``fp16``.
        opset: Version of the default operator set.
        onnxruntime: The first ONNX Runtime that was measured to run the graph, to the same logits; written to
            ``Manifest.requires``.
        ir_version: Version of the file's own format.
        layout: ``padded`` or ``packed``, see ``fusedbert.engine.artifact.Variant``.
        attention_ops: Types of fused attention nodes, with their domain as ``com.microsoft:Attention``; a layer has
            exactly one node of one of them. None where the operator set has no such operator.
        note: What whoever exports is told about this graph, with a ``FusionWarning``.
    """

    file: ClassVar[str]
    target: ClassVar[str]
    precision: ClassVar[str]
    opset: ClassVar[int]
    onnxruntime: ClassVar[str]
    ir_version: ClassVar[int] = IR_VERSION
    layout: ClassVar[str] = PADDED
    attention_ops: ClassVar[tuple[str, ...]]
    note: ClassVar[str | None] = None
    output_names: ClassVar[tuple[str, ...]] = ("logits",)

    def __init__(self, graph: Graph, architecture: Architecture) -> None:
        self.graph = graph
        self.architecture = architecture

    @classmethod
    def prepare(cls, subject: Subject, tell: Progress) -> Parameters:
        """Return the weights that the graph is built from: the checkpoint's, or what a target makes of them."""
        return subject.weights

    @classmethod
    def unfit(cls, a: Architecture) -> str | None:
        """Say why a model cannot have this graph, which is then left out of the artifact; None where it can."""
        return None

    @classmethod
    def weigh(cls, path: Path, subject: Subject, tell: Progress) -> Parity | None:
        """Judge the written graph in another way than by running it on the CPU; None where it can run there."""
        return None

    @classmethod  # noqa: B027 (most give logits alone)
    def examine(cls, path: Path, subject: Subject, tell: Progress) -> None:
        """Hold what the written graph gives besides its logits against the reference; raise ``ExportError`` where it fails."""

    @abc.abstractmethod
    def inputs(self) -> None:
        """Declare the graph's inputs and what is computed from them once, such as the mask."""

    @abc.abstractmethod
    def embed(self, tables: Embeddings) -> str:
        """Add up word, position and segment vectors and normalize them."""

    @abc.abstractmethod
    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Project ``x`` to queries, keys and values, and attend; for the first token of each text only if ``cls_only``."""

    @abc.abstractmethod
    def cls_rows(self, x: str) -> str:
        """Take the vector of the first token of each text."""

    @abc.abstractmethod
    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """Compute ``act(x W + b)``, element by element; ``kind`` is one of ``activations.KINDS``."""

    @abc.abstractmethod
    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """Normalize ``x W + b + residual`` over the last axis (Ba et al. 2016)."""

    @abc.abstractmethod
    def classify(self, pooled: str, weights: Dense) -> None:
        """Compute the logits in float32 and declare them the graph's output."""
