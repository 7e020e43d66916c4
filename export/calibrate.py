"""Calibration of int8: texts run through the fp32 graph while observers record the inputs of its products.

The built-in texts (``calibration.txt``, one a line; the first is empty) and pairs (``calibration_pairs.txt``, with a tab
between) are varied, to serve any model. They were written for this purpose and come from no data set, so that accuracy on a
data set means something.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.text.tokenizer import Row, pad

from .checkpoint.weights import Dense, Layer, Norm
from .graph.cpu.fp32 import CpuFp32
from .graph.int8.weights import LayerParams, Observed, fit_layers
from .parity.baseline import DirectBaseline
from .parity.gates import open_scratch, run_batch
from .parity.texts import read_pairs
from .tokenizer import TextOrPair

LONGEST = 6000  # characters of the joined texts: beyond 512 tokens, where it matters, and soon calibrated
ROWS = 512  # rows of an input that are recorded, to compare scales on


class CalibrationGraph(CpuFp32):
    """The fp32 CPU graph with the inputs of its products as outputs, four a layer."""

    file: ClassVar[str] = "calibration.onnx"
    _observed = 0

    def _observe(self, x: str, width: int) -> None:
        if self._observed < 4 * self.architecture.layers:  # the head's come after
            self.graph.output(f"input_{self._observed}", x, "float32", ["rows", width])
        self._observed += 1

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Observe the input of queries, keys and values."""
        self._observe(x, self.architecture.hidden_size)
        return super().attend(x, layer, i, cls_only=cls_only)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """Observe the input of the first feed-forward."""
        self._observe(x, len(weights.weight))
        return super().dense_activation(name, x, weights, kind)

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """Observe the inputs of output projection and second feed-forward."""
        self._observe(x, len(weights.weight))
        return super().dense_add_norm(name, x, weights, residual, norm, final=final)


@dataclasses.dataclass
class Observer:
    """The range of one input so far, and a random ``share`` of its rows."""

    share: float
    low: NDArray[Any] | float = np.inf
    high: NDArray[Any] | float = -np.inf
    rows: list[NDArray[Any]] = dataclasses.field(default_factory=list)

    def observe(self, x: NDArray[np.float32], random: np.random.Generator) -> None:
        """Record one text's rows ``[rows, in]``."""
        self.low, self.high = np.minimum(self.low, x.min(axis=0)), np.maximum(self.high, x.max(axis=0))
        self.rows.append(x[random.random(len(x)) < self.share])

    def result(self) -> Observed:
        """Return all that was recorded."""
        return Observed(low=np.asarray(self.low), high=np.asarray(self.high), rows=np.concatenate(self.rows))


def calibrate(baseline: DirectBaseline, texts: Sequence[Row]) -> tuple[LayerParams, ...]:
    """Fit the quantization parameters of every layer to the activations of ``texts``."""
    a = baseline.architecture
    tokens = sum(len(text.ids) for text in texts)
    count = 4 * a.layers
    cls_only = range(count - 3, count) if a.cls_only else ()  # of the last layer, one row a text
    observers = [Observer(ROWS / (len(texts) if i in cls_only else tokens)) for i in range(count)]
    random = np.random.default_rng(0)
    names = [f"input_{i}" for i in range(count)]
    session = open_scratch(a, baseline.weights, CalibrationGraph)
    for text in texts:
        inputs = run_batch(session, names, pad([text], a.padding_id))
        for observer, x in zip(observers, inputs, strict=True):
            observer.observe(x, random)
    del session
    observed = [observer.result() for observer in observers]
    by_layer = [observed[4 * i : 4 * i + 4] for i in range(a.layers)]
    fitted: list[LayerParams] = []
    for _, group in itertools.groupby(range(a.layers), a.group):  # layers of the same weights
        layers = list(group)
        fitted += fit_layers(baseline.weights.layer(layers[0]), [by_layer[i] for i in layers], a.activation)
    return tuple(fitted)


def calibration_texts(baseline: DirectBaseline) -> list[Row]:
    """Tokenize the texts: by themselves, as pairs for the second segment, and joined for late positions."""
    texts: list[TextOrPair] = [text.plain() for text in baseline.calibration] or [*built_in_texts(), *built_in_pairs()]
    singles = [text for text in texts if isinstance(text, str)]
    pairs = zip(singles[0:16:2], singles[1:16:2], strict=False)
    parts = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    return baseline.tokens.encode_all([*texts, *pairs, " ".join(parts)[:LONGEST], " ".join(reversed(parts))[:LONGEST]])


def built_in_texts() -> tuple[str, ...]:
    """Read the built-in calibration texts."""
    return tuple(Path(__file__).with_name("calibration.txt").read_bytes().decode("utf-8").splitlines())


def built_in_pairs() -> tuple[tuple[str, str], ...]:
    """Read the built-in calibration pairs."""
    return read_pairs(Path(__file__).with_name("calibration_pairs.txt"))
