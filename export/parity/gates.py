"""Parity check of a graph: it is run on the check texts, and compared with the float64 reference within limits."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Parity, Variant, columns_of
from fusedbert.engine.artifact.limits import (
    FP32_TOLERANCE,
    GOLDEN_TOLERANCE,
    LABEL_AGREEMENT,
    MEAN_PROBABILITY,
    ORDER,
    passes,
)
from fusedbert.engine.errors import ExportError, MissingDependencyError
from fusedbert.engine.text.tokenizer import Row, pad

from ..checkpoint import LeftOutWarning
from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Weights
from ..graph.bert import build
from ..graph.builder import FLOAT16_MAX
from ..graph.lowering import Lowering
from .baseline import Baseline, Progress
from .compare import rounded
from .heads import by_head, compare_heads, worst
from .texts import CheckSet

OWN_ROUNDING = 64.0  # times the error of the reference in float32; another order of summation was off by ten times
LOAD_ROOM = 16.0  # times the graph's error at export: the error that such a model may have on another machine
MOST_ROUNDING = 0.02  # of the logits' spread: a model that is less certain in float32 cannot be checked
_WAYS_OUT = {"int8": "calibrate it with your texts (--calibrate), or use --for fp32"}
_MAGNIFIES = "the model's weights magnify rounding, so that float32 does not settle its logits; if that is not so, "


def open_session(path: Path, *, disabled: Sequence[str] = ()) -> Any:
    """Open a graph on the CPU, as the engine would; ``disabled`` are optimizers of ONNX Runtime to leave out."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError.of("onnxruntime", "cpu", "check a graph before it is kept") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Every batch of the check has another shape, so that planned and pooled memory would only add up.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion", *disabled],
        )
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise ExportError(f"ONNX Runtime cannot open {path.name}: {' '.join(str(error).split())}") from None


def open_scratch(a: Architecture, weights: Weights, lowering: type[Lowering], folder: Path | None = None) -> Any:
    """Build a graph that is not kept, and open it; it is written into ``folder``, or that of the system for temporary files."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fusedbert-") as scratch:
        path = Path(scratch) / Path(lowering.file).name
        build(a, weights, lowering).write(path, "scratch", opset=lowering.opset, metadata={})
        return open_session(path)


def run_batch(session: Any, outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Run one batch; arrays that the graph does not declare are left out."""
    declared = {item.name for item in session.get_inputs()}
    return list(session.run(outputs, {name: array for name, array in arrays.items() if name in declared}))


def run_graph(
    session: Any,
    checks: CheckSet,
    padding_id: int,
    arrange: Callable[[Sequence[Row], int], Mapping[str, NDArray[Any]]] = pad,
) -> list[tuple[int, NDArray[np.float32]]]:
    """Run every batch, laid out by ``arrange``; return the row of each text, or token, with its logits ``[labels]``."""
    results = []
    for batch in checks.batches:
        arrays = arrange([checks.texts[row] for row in batch], padding_id)
        try:
            (logits,) = run_batch(session, ["logits"], arrays)
        except Exception as error:  # see open_session
            shape = "x".join(map(str, arrays["input_ids"].shape))
            raise ExportError(f"the graph failed on a batch of {shape} tokens: {' '.join(str(error).split())}") from None
        results += by_row(checks, batch, logits)
    return results


def by_row(checks: CheckSet, batch: Sequence[int], logits: NDArray[np.float32]) -> list[tuple[int, NDArray[np.float32]]]:
    """Return the row of each logit of a batch; those of tokens are ``[batch, tokens, labels]``, or packed."""
    if not checks.by_token:
        return list(zip(batch, logits, strict=True))
    lengths = [len(checks.texts[row].ids) for row in batch]
    if logits.ndim == 3:
        parts = [text[:length] for text, length in zip(logits, lengths, strict=True)]
    else:
        parts = np.split(logits[: sum(lengths)], np.cumsum(lengths)[:-1])
    starts = [checks.starts[row] for row in batch]
    return [(start + i, each) for start, part in zip(starts, parts, strict=True) for i, each in enumerate(part)]


def check_parity(path: Path, precision: str, baseline: Baseline, progress: Progress) -> Parity:
    """Compare a written graph with the reference; raise ``ExportError`` if it cannot be run or is beyond its limits."""
    file = f"{path.parent.name}/{path.name}"
    size = sum(part.stat().st_size for part in graph_files(path))
    progress(f"checking {file}, {size / 1e6:.1f} MB, against the reference")
    results = run_graph(open_session(path), baseline.checks, baseline.architecture.padding_id)
    parity = compare_heads(results, baseline.reference, baseline.outputs, baseline.terms)
    tolerance: Mapping[str, float] = {}
    if precision == "fp32" and not all(each.max_abs_logit <= _fp32_limit(each) for each in by_head(parity).values()):  # as NaN
        progress("computing the reference in float32 too, because float32 may not settle this model's logits")
        tolerance = float32_tolerance(baseline)
    check_limits(parity, precision, file, tolerance)
    return with_load_tolerance(parity) if any(tolerance.values()) else parity


def keep_if_passing(make: Callable[[], Variant], path: Path, *, required: bool) -> list[Variant]:
    """Write and check a graph at ``path``; if it fails and is not ``required``, remove it and warn."""
    try:
        return [make()]
    except ExportError as error:
        if required:
            raise
        for file in graph_files(path):
            file.unlink()
        warnings.warn(f"{path.parent.name}/{path.name} is left out: {error}", LeftOutWarning, stacklevel=3)
        return []


def graph_files(path: Path) -> list[Path]:
    """List a graph's files, with external data if any."""
    return [file for file in (path, path.with_name(f"{path.name}_data")) if file.exists()]


def _fp32_limit(parity: Parity) -> float:
    return FP32_TOLERANCE * (1.0 if parity.scale is None else parity.scale)


def float32_tolerance(baseline: Baseline) -> dict[str, float]:
    """Return the error that each head may have in fp32 because the model magnifies rounding; none if not known.

    Large weights make attention choose between scores of hundreds, whose rounding becomes thousandths of a logit.
    """
    float32 = baseline.in_float32()
    if float32 is None:
        return {}
    own = by_head(compare_heads(list(enumerate(float32)), baseline.reference, baseline.outputs, baseline.terms))
    spread = {head.name: float(np.ptp(baseline.reference[:, at], axis=0).max()) for head, at in columns_of(baseline.outputs)}
    return {name: min(OWN_ROUNDING * each.max_abs_logit, MOST_ROUNDING * spread[name]) for name, each in own.items()}


def with_load_tolerance(parity: Parity) -> Parity:
    """Raise ``scale`` for a model that magnifies rounding, so that the replay of golden texts has room too."""
    if parity.heads:
        return worst({name: with_load_tolerance(head) for name, head in parity.heads.items()})
    ordered = parity.rank_correlation is not None
    scale = LOAD_ROOM * parity.max_abs_logit / (FP32_TOLERANCE if ordered else GOLDEN_TOLERANCE["fp32"])
    return rounded(dataclasses.replace(parity, scale=max(scale, parity.scale or 1.0)))


def check_fused_attention(nodes: Mapping[str, int], ops: Sequence[str], layers: int, file: str) -> int:
    """Count the fused attention nodes; raise ``ExportError`` if they are not as many as the layers."""
    count = sum(nodes.get(op, 0) for op in ops)
    if count != layers:
        raise ExportError(
            f"{file} has {count} fused attention nodes ({', '.join(ops)}), expected one for each of {layers} layers"
        )
    return count


def check_activations(largest: float, file: str) -> None:
    """Raise ``ExportError`` if the reference's activations exceed float16; a check on the CPU computes in wider numbers."""
    if not largest < FLOAT16_MAX:
        raise ExportError(f"{file}: an activation reaches {largest:.3g} and float16 ends at {FLOAT16_MAX:g}: use --for cpu")


def check_limits(parity: Parity, precision: str, file: str, tolerance: Mapping[str, float] = MappingProxyType({})) -> None:
    """Raise ``ExportError`` if a head's figure is NaN or beyond the limits of a precision, in fp32 at least ``tolerance``."""
    for name, head in by_head(parity).items():
        _check_head(head, precision, f"{file}, head {name}," if name else file, tolerance.get(name, 0.0))


def _check_head(parity: Parity, precision: str, file: str, tolerance: float) -> None:
    if precision == "fp32":
        limit = max(_fp32_limit(parity), tolerance)
        if not parity.max_abs_logit <= limit:
            raise ExportError(
                f"{file} differs from the reference by {parity.max_abs_logit:.2g} in a logit, at most {limit:.2g} is "
                f"accepted: {_MAGNIFIES if tolerance == limit else ''}please report the checkpoint's config.json"
            )
        return
    if passes(parity, precision):
        return
    if parity.rank_correlation is None:
        raise ExportError(
            f"{file} keeps {parity.label_agreement:.1%} of {parity.texts} labels and moves a probability by "
            f"{parity.mean_abs_probability:.3g} on average, expected {LABEL_AGREEMENT:.0%} and at most "
            f"{MEAN_PROBABILITY[precision]:g}: {_WAYS_OUT.get(precision, 'use --for fp32')}"
        )
    limits = ORDER[precision]
    raise ExportError(
        f"{file} keeps the order of {parity.texts} texts to a rank correlation of {parity.rank_correlation:.3f} and moves an "
        f"output by {parity.mean_of_spread:.2%} of their spread ({parity.spread:.3g}) on average, {parity.max_of_spread:.2%} "
        f"at most; expected {limits.rank_correlation:g}, {limits.mean_of_spread:.2%} and {limits.max_of_spread:.2%}: "
        f"{_WAYS_OUT.get(precision, 'use --for fp32')}"
    )
