"""Calibration: running texts through the fp32 graph and watching the inputs of its products.

The graph is the CPU's, with the input of every product as an output more, so that what is watched is what will run: in
the last layer the first tokens alone.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.weights import Dense, Layer, Norm
from ..graph.bert import build
from ..graph.lowering.cpu_fp32 import CpuFp32
from ..parity.gates import batch_arrays, open_session
from ..parity.reference import Encoded
from .quantize import LayerPlan, Range, plan_layer
from .texts import TEXTS

if TYPE_CHECKING:
    from ..parity.baseline import Subject

ROWS = 512  # rows of an input that are kept, to try scales on


class Watched(CpuFp32):
    """The fp32 graph with the inputs of its products as outputs, four a layer."""

    file: ClassVar[str] = "watched.onnx"

    def _watch(self, x: str, width: int) -> None:
        self.watched = (*getattr(self, "watched", ()), x)
        if len(self.watched) <= 4 * self.architecture.layers:  # the head's come after
            self.graph.output(f"input_{len(self.watched) - 1}", x, "float32", ["rows", width])

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Watch the input of queries, keys and values."""
        self._watch(x, self.architecture.hidden_size)
        return super().attend(x, layer, cls_only=cls_only)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """Watch the input of the first feed-forward."""
        self._watch(x, len(weights.weight))
        return super().dense_activation(name, x, weights, kind)

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """Watch the input of the output projection, and of the second feed-forward."""
        self._watch(x, len(weights.weight))
        return super().dense_add_norm(name, x, weights, residual, norm)


@dataclasses.dataclass
class Watcher:
    """Gathers the range of one input, and some of its rows."""

    share: float
    low: NDArray[Any] | float = np.inf
    high: NDArray[Any] | float = -np.inf
    rows: list[NDArray[Any]] = dataclasses.field(default_factory=list)

    def see(self, x: NDArray[np.float32], random: np.random.Generator) -> None:
        """Look at one text's rows ``[rows, in]``."""
        self.low, self.high = np.minimum(self.low, x.min(axis=0)), np.maximum(self.high, x.max(axis=0))
        self.rows.append(x[random.random(len(x)) < self.share])

    def range(self) -> Range:
        """Return what was seen."""
        return Range(low=np.asarray(self.low), high=np.asarray(self.high), rows=np.concatenate(self.rows))


def calibrate(subject: Subject, texts: Sequence[Encoded]) -> tuple[LayerPlan, ...]:
    """Fit the activation scales of every layer to what some texts make of the activations.

    Args:
        subject: The checkpoint.
        texts: Tokenized calibration texts.

    Returns:
        A plan for each layer.
    """
    a = subject.architecture
    tokens = sum(len(text.ids) for text in texts)
    first_only = range(4 * a.layers - 3, 4 * a.layers)  # of the last layer, one row a text
    watchers = [Watcher(ROWS / (len(texts) if site in first_only else tokens)) for site in range(4 * a.layers)]
    random = np.random.default_rng(0)
    names = [f"input_{site}" for site in range(4 * a.layers)]
    with tempfile.TemporaryDirectory(prefix="fusedbert-") as folder:
        path = Path(folder) / Watched.file
        build(a, subject.weights, Watched).write(path, "watched", opset=Watched.opset, metadata={})
        session = open_session(path)
    declared = {item.name for item in session.get_inputs()}
    for text in texts:
        arrays = batch_arrays([text], a.padding_id)
        seen = session.run(names, {name: array for name, array in arrays.items() if name in declared})
        for watcher, x in zip(watchers, seen, strict=True):
            watcher.see(x, random)
    del session
    ranges = [watcher.range() for watcher in watchers]
    return tuple(plan_layer(subject.weights.layer(i), ranges[4 * i : 4 * i + 4]) for i in range(a.layers))


def calibration_texts(subject: Subject) -> list[Encoded]:
    """Tokenize the calibration texts: each by itself, some as pairs, and joined up to ``max_length``.

    The long ones show the activations of late positions, the pairs those of the second segment.
    """
    texts, tokens = subject.calibration or TEXTS, subject.tokens
    pairs = zip(texts[0:16:2], texts[1:16:2], strict=False)
    return tokens.encode_all([*texts, *pairs, " ".join(texts), " ".join(reversed(texts))])
