"""The int8 graph's feed-forwards that stay in bfloat16, because a model needs them.

An error of the first layers goes through all attention that follows. On sentence pairs a classifier of six layers had nearly
all of its error from the feed-forwards of the first three (bench/NOTES.md). So the first ones stay in bfloat16, as few as are
needed: most models need none. Choosing the layers of another precision by the error is called accuracy control elsewhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.artifact import Parity
from fusedbert.engine.artifact.limits import MEAN_PROBABILITY, ORDER, passes

from ..graph.bert import build
from ..graph.cpu.bf16 import PAIR
from ..graph.cpu.fp32 import CpuFp32
from ..graph.cpu.int8 import CpuInt8
from ..graph.int8.weights import LayerParams, QuantizedWeights
from .baseline import DirectBaseline, Progress
from .gates import open_scratch, open_session, run_graph
from .heads import compare_heads
from .saturation import by_length, open_stand_in, products_saturate
from .texts import CheckSet

TARGET = 0.8  # of the mean change that the gate of int8 accepts
MOST = 3  # layers, and half of all; in each the feed-forward takes twice its time


def choose_bf16_layers(baseline: DirectBaseline, params: tuple[LayerParams, ...], progress: Progress) -> int:
    """Return for how many layers from the first the feed-forward stays in bfloat16.

    It is the smallest number that passes the gate, and with which the mean change is within ``TARGET`` on single texts, on
    pairs and on the texts of ``--calibrate``; if there is none, the largest. The kind that the gate leaves out, because the
    model is less sure of it, counts here: its change shows how far rounding carries. A model of pairs has to pass without
    ``MORE_PAIRS`` too: of fewer texts, one label that is lost is a need.
    """
    sets = [(by_length(baseline.checks), baseline.reference)]
    before = len(baseline.reference) - baseline.more  # texts without MORE_PAIRS
    if baseline.other is not None:
        sets.append((by_length(baseline.other[0]), baseline.other[1]))
    if baseline.calibration:
        sets.append(_own_texts(baseline))
    errors: list[float] = []
    divisible = baseline.architecture.intermediate_size % PAIR == 0  # else no operator in bfloat16 takes the neurons
    most = min(MOST, baseline.architecture.layers // 2) if divisible else 0
    for layers in range(most + 1):
        session = _open(baseline, QuantizedWeights(baseline.weights, params, layers))
        results = [run_graph(session, checks, baseline.architecture.padding_id) for checks, _ in sets]
        found = [_compare(baseline, run, reference) for run, (_, reference) in zip(results, sets, strict=True)]
        found.insert(1, _compare(baseline, [each for each in results[0] if each[0] < before], baseline.reference[:before]))
        errors.append(max(map(share_of_limit, found)))
        if errors[-1] <= TARGET and all(passes(each, CpuInt8.precision) for each in found[:2]):
            break
    layers = len(errors) - 1
    if layers:
        all_layers = baseline.architecture.layers
        progress(
            f"{CpuInt8.file}: the feed-forward of the first {layers} of {all_layers} layers stays in bfloat16, for a "
            f"mean change of {errors[-1]:.0%} of what is accepted, after {errors[0]:.0%}"
        )
    return layers


def _own_texts(baseline: DirectBaseline) -> tuple[CheckSet, Any]:
    """Return the texts of ``--calibrate``, with the logits of the fp32 graph."""
    texts = baseline.tokens.encode_all([text.plain() for text in baseline.calibration])
    checks = by_length(CheckSet(tuple(texts), (), baseline.architecture.by_token))
    results = run_graph(
        open_scratch(baseline.architecture, baseline.weights, CpuFp32), checks, baseline.architecture.padding_id
    )
    return checks, np.stack([logits for _, logits in sorted(results, key=lambda each: each[0])]).astype(np.float64)


def _open(baseline: DirectBaseline, weights: QuantizedWeights) -> Any:
    """Open the int8 graph with exact products, whatever the processor."""
    with tempfile.TemporaryDirectory(prefix=".fusedbert-") as scratch:
        path = Path(scratch) / "model.onnx"
        build(baseline.architecture, weights, CpuInt8).write(path, "scratch", opset=CpuInt8.opset, metadata={})
        return open_stand_in(path, saturating=False) if products_saturate() else open_session(path)


def _compare(baseline: DirectBaseline, results: Any, reference: Any) -> Parity:
    return compare_heads(results, reference, baseline.outputs, baseline.terms)


def share_of_limit(parity: Parity) -> float:
    """Return the mean change of an int8 graph as a share of what its gate accepts, for the worst of its heads."""
    if parity.heads:
        return max(map(share_of_limit, parity.heads.values()))
    if parity.mean_of_spread is not None:
        return parity.mean_of_spread / ORDER[CpuInt8.precision].mean_of_spread
    return parity.mean_abs_probability / MEAN_PROBABILITY[CpuInt8.precision]
