"""Parity checks of the int8 graph for processors whose 8-bit products are exact, and for those where they saturate.

Whether ONNX Runtime's product saturates depends on the processor (``graph.int8.products``), and an artifact is not used only
where it was made. So the graph is measured as both kinds compute it, by stand-ins: the same model with another function
``Dense``, whose results are the same on every machine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fusedbert.engine.artifact import Parity
from fusedbert.engine.artifact.limits import figures, limits, passes

from ..graph.int8.products import dense_stand_in
from .baseline import DirectBaseline, Progress
from .gates import check_limits, check_parity, open_session, run_graph
from .heads import compare_heads
from .texts import CheckSet

MEASURED_EXACT = "the same graph with exact products, because this processor's saturate"
MEASURED_SATURATED = "the same graph with each pair of products clipped at 16 bits, as by ONNX Runtime's AVX2 kernel"
BATCH_TOKENS = 512  # or one text; more need more memory, and more weights may saturate with one of them
BIAS = 4  # place of the bias among the inputs of a product, right after the outputs' scales
_PRECISION = "int8"


def check_exact(path: Path, baseline: DirectBaseline, progress: Progress) -> Parity:
    """Compare the int8 graph, with exact products, with the reference; raise ``ExportError`` as ``check_parity``."""
    if not products_saturate():
        return check_parity(path, _PRECISION, baseline, progress)
    file = f"{path.parent.name}/{path.name}"
    progress(f"checking {file} with exact products against the reference")
    parity = _measure(path, baseline, baseline.checks, saturating=False)
    check_limits(parity, _PRECISION, file)
    return dataclasses.replace(parity, measured_on=MEASURED_EXACT)


def measure_saturated(path: Path, baseline: DirectBaseline, progress: Progress) -> Parity:
    """Compare the int8 graph as an AVX2 processor computes it with the reference; each text runs once."""
    file = f"{path.parent.name}/{path.name}"
    progress(f"checking {file} as a processor with AVX2 and no VNNI computes it")
    parity = _measure(path, baseline, by_length(baseline.checks), saturating=True)
    good = passes(parity, _PRECISION)
    verdict = "auto takes it there" if good else f"beyond the limits ({limits(parity, _PRECISION)}): auto takes fp32 there"
    progress(f"{file} on AVX2: {figures(parity)}; {verdict}")
    return dataclasses.replace(parity, measured_on=MEASURED_SATURATED)


def products_saturate() -> bool:
    """Return whether ONNX Runtime's product of uint8 and int8 saturates on this processor, by computing one."""
    import onnxruntime

    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "product (uint8[2, 64] a, int8[64, 32] b) => (int32[2, 32] y) { y = MatMulInteger (a, b) }"
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results: Any = session.run(["y"], {"a": np.full((2, 64), 255, np.uint8), "b": np.full((64, 32), 127, np.int8)})
    return not np.array_equal(results[0], np.full((2, 32), 64 * 255 * 127))


def open_stand_in(path: Path, *, saturating: bool) -> Any:
    """Open the int8 graph at ``path`` with the body of ``graph.int8.products`` in place of its ``Dense``."""
    model = onnx.load(path, load_external_data=False)
    others = [function for function in model.functions if function.name != "Dense"]
    del model.functions[:]
    model.functions.extend([*others, dense_stand_in(saturating=saturating)])
    _add_biases(model.graph)
    scratch = path.with_name(f".fusedbert-{path.name}")  # next to the external data, if any
    try:
        scratch.write_bytes(model.SerializeToString())
        return open_session(scratch, disabled=("ConstantFolding",))  # folded, the weights would stay in memory in 32 bits
    finally:
        scratch.unlink(missing_ok=True)


def _add_biases(graph: Any) -> None:
    """Give a product without a bias one of zeros, because the stand-in adds it by an operator that needs one."""
    outputs = {weight.name: weight.dims[0] for weight in graph.initializer if len(weight.dims) == 1}
    for node in graph.node:
        if node.op_type.startswith("Dense") and not "".join(node.input[BIAS : BIAS + 1]):
            name = f"{node.name}/zeros"
            graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(outputs[node.input[BIAS - 1]], np.float32), name))
            del node.input[BIAS : BIAS + 1]
            node.input.insert(BIAS, name)


def by_length(checks: CheckSet) -> CheckSet:
    """Batch each text once, with others of its length, up to ``BATCH_TOKENS``."""
    batches: list[list[int]] = []
    for row in sorted(range(len(checks.texts)), key=lambda row: len(checks.texts[row].ids)):
        if not batches or (len(batches[-1]) + 1) * len(checks.texts[row].ids) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return dataclasses.replace(checks, batches=tuple(map(tuple, batches)))


def _measure(path: Path, baseline: DirectBaseline, checks: CheckSet, *, saturating: bool) -> Parity:
    results = run_graph(open_stand_in(path, saturating=saturating), checks, baseline.architecture.padding_id)
    return compare_heads(results, baseline.reference, baseline.outputs, baseline.terms)
