"""The choice of a graph: int8 only inside its gates and on a CPU that computes it exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier, OptionError
from fusedbert.engine.hardware.cpu import Machine
from fusedbert.engine.load import Precision
from fusedbert.engine.load.select import select_variant

NEW = Machine(cpu="new", features=("avx2", "avx512_vnni"), logical=2, physical=2, quota=None, cores=2)
OLD = Machine(cpu="old", features=("avx2",), logical=2, physical=2, quota=None, cores=2)
GOOD = {"label_agreement": 0.995, "mean_abs_probability": 0.004}


@pytest.fixture
def held(manifest: Callable[..., Any], variant: Callable[..., Any]) -> Callable[..., Any]:
    def make(*kinds: tuple[str, str], **parity: float) -> Any:
        variants = tuple(variant(*kind, **(parity if kind[1] == "int8" else {})) for kind in kinds)
        return manifest(("a", "b"), "single_label_classification", variants=variants)

    return make


FP32, INT8, FP16 = ("cpu", "fp32"), ("cpu", "int8"), ("cuda", "fp16")


@pytest.mark.parametrize(
    ("kinds", "parity", "machine", "target", "precision", "why"),
    [
        ((FP32,), {}, NEW, "cpu", "fp32", "no int8 graph"),
        ((FP32, INT8), GOOD, NEW, "cpu", "int8", "99.5%, mean change of p 0.0040"),
        ((FP32, INT8), GOOD, OLD, "cpu", "fp32", "no 8-bit dot products"),
        ((FP32, INT8), GOOD | {"label_agreement": 0.989}, NEW, "cpu", "fp32", "98.9%"),
        ((FP32, INT8), GOOD | {"mean_abs_probability": 0.011}, NEW, "cpu", "fp32", "0.0110"),
        ((INT8,), GOOD, OLD, "cpu", "int8", "within the gates"),
        ((FP32, INT8, FP16), GOOD, NEW, "cuda", "fp16", "for CUDA"),
        ((FP32,), GOOD, NEW, "cuda", "fp32", "no graph for CUDA"),
    ],
)
def test_auto_takes_the_best_precision_that_passed_its_gates(
    held: Any, kinds: Any, parity: Any, machine: Machine, target: str, precision: str, why: str
) -> None:
    selection = select_variant(held(*kinds, **parity), target=target, precision=Precision.AUTO, machine=machine)
    assert selection.variant.precision == precision and why in selection.why


@pytest.mark.parametrize(
    ("kinds", "target", "precision"),
    [((FP32,), "cpu", "int8"), ((FP32, FP16), "cpu", "fp16"), ((INT8,), "cuda", "auto"), ((FP16,), "cpu", "auto")],
)
def test_a_precision_that_the_artifact_lacks_is_refused(held: Any, kinds: Any, target: str, precision: str) -> None:
    with pytest.raises(OptionError) as caught:
        select_variant(held(*kinds), target=target, precision=Precision(precision), machine=NEW)
    assert all(f"{held_precision} for {held_target}" in str(caught.value) for held_target, held_precision in kinds)
    # A graph that is made for only one device cannot be made for the other.
    way_out = "fp16 runs only on CUDA" if (target, precision) == ("cpu", "fp16") else "fusedbert export SOURCE OUTPUT --for all"
    assert way_out in str(caught.value)


def test_int8_that_fails_its_gates_must_be_asked_for(held: Any) -> None:
    bad = held(INT8, label_agreement=0.5)
    with pytest.raises(OptionError, match="ask for int8"):
        select_variant(bad, target="cpu", precision=Precision.AUTO, machine=NEW)
    assert select_variant(bad, target="cpu", precision=Precision.INT8, machine=OLD).variant.precision == "int8"


def test_a_requested_precision_runs_its_file(make_artifact: Callable[..., Path], variant: Callable[..., Any]) -> None:
    folder = make_artifact(variants=(variant(), variant("cpu", "int8", **GOOD)))
    with Classifier.from_pretrained(folder, precision="int8") as clf:
        assert clf.runtime.file.name == "model_int8.onnx" and clf.runtime.precision == "int8"
