"""The choice of a graph: int8 only inside its gates, as this CPU computes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier, OptionError
from fusedbert.engine.artifact import Evaluation, Parity
from fusedbert.engine.hardware.cpu import Machine
from fusedbert.engine.load import Precision
from fusedbert.engine.load.golden import allowed
from fusedbert.engine.load.select import as_computed_on, select_variant

NEW = Machine(cpu="new", features=("avx2", "avx512_vnni"), logical=2, physical=2, quota=None, cores=2)
AVX2 = dataclasses.replace(NEW, features=("avx2",))
SKYLAKE = dataclasses.replace(NEW, features=("avx2", "avx512f"))
OLD = dataclasses.replace(NEW, features=())
GOOD = {"label_agreement": 0.995, "mean_abs_probability": 0.004}
PASSES = Parity(reference="r", texts=100, max_abs_logit=0.7, label_agreement=0.993, mean_abs_probability=0.006)
PASSES_BF16 = dataclasses.replace(PASSES, label_agreement=1.0, mean_abs_probability=0.0003)
FAILS = dataclasses.replace(PASSES, label_agreement=0.75)


@pytest.fixture
def held(manifest: Callable[..., Any], variant: Callable[..., Any]) -> Callable[..., Any]:
    def make(*kinds: tuple[str, str], **parity: float) -> Any:
        variants = tuple(variant(*kind, **(parity if kind[1] == "int8" else {})) for kind in kinds)
        return manifest(("a", "b"), "single_label_classification", variants=variants)

    return make


FP32, INT8, BF16, FP16 = ("cpu", "fp32"), ("cpu", "int8"), ("cpu", "bf16"), ("cuda", "fp16")


@pytest.mark.parametrize(
    ("kinds", "parity", "machine", "target", "precision", "why"),
    [
        ((FP32,), {}, NEW, "cpu", "fp32", "no int8 graph"),
        ((FP32, INT8), GOOD, NEW, "cpu", "int8", "99.5%, mean change of p 0.0040"),
        ((FP32, INT8), GOOD, OLD, "cpu", "fp32", "not known to have 8-bit dot products"),
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
    ("kinds", "parity", "half", "precision", "why"),
    [
        ((FP32, INT8, BF16), GOOD, PASSES_BF16, "int8", "int8 within the gates"),
        ((FP32, INT8, BF16), {"label_agreement": 0.98}, PASSES_BF16, "bf16", "bf16 within the gates (labels agree in 100.0%"),
        ((FP32, INT8, BF16), {"label_agreement": 0.98}, PASSES_BF16, "bf16", "int8 does not pass the gates"),
        ((FP32, BF16), {}, PASSES_BF16, "bf16", "no int8 graph"),
        ((BF16,), {}, PASSES_BF16, "bf16", "no int8 graph"),
        ((FP32, BF16), {}, dataclasses.replace(PASSES_BF16, mean_abs_probability=0.006), "fp32", "no int8 graph"),
    ],
)
def test_auto_takes_bf16_after_int8_and_before_fp32(
    held: Any, kinds: Any, parity: dict[str, float], half: Parity, precision: str, why: str
) -> None:
    made = held(*kinds, **parity)
    variants = [dataclasses.replace(v, parity=half) if v.precision == "bf16" else v for v in made.variants]
    made = dataclasses.replace(made, variants=tuple(variants))
    selection = select_variant(made, target="cpu", precision=Precision.AUTO, machine=NEW, bf16=True)
    assert selection.variant.precision == precision and why in selection.why


def test_auto_takes_bf16_only_where_there_are_kernels_for_it(held: Any) -> None:
    made = held(FP32, BF16)
    assert select_variant(made, target="cpu", precision=Precision.AUTO, machine=NEW).variant.precision == "fp32"
    assert select_variant(made, target="cpu", precision=Precision.BF16, machine=NEW).variant.precision == "bf16"


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


@pytest.mark.parametrize(
    ("machine", "measured", "clipped", "precision", "why"),
    [
        (AVX2, {}, PASSES, "int8", "ONNX Runtime's AVX2 kernel, whose products saturate (labels agree in 99.3%"),
        (SKYLAKE, {}, PASSES, "int8", "ONNX Runtime's AVX-512 kernel"),
        (
            AVX2,
            {},
            FAILS,
            "fp32",
            "saturate, as on this CPU (labels agree in 75.0%, mean change of p 0.0060; limits 99% and 0.01)",
        ),
        (AVX2, {}, None, "fp32", "export it again (int8: labels agree in 99.5%"),
        (AVX2, {"label_agreement": 0.5}, PASSES, "fp32", "50.0%"),
        (NEW, {}, FAILS, "int8", "within the gates (labels agree in 99.5%"),
        (OLD, {}, PASSES, "fp32", "not known to have 8-bit dot products"),
    ],
)
def test_where_products_saturate_auto_takes_int8_that_was_measured_so(
    held: Any, machine: Machine, measured: dict[str, float], clipped: Parity | None, precision: str, why: str
) -> None:
    both = held(FP32, INT8, **GOOD | measured)
    selection = select_variant(_with_avx2(both, clipped), target="cpu", precision=Precision.AUTO, machine=machine)
    assert selection.variant.precision == precision and why in selection.why


def test_int8_that_fails_where_products_saturate_must_be_asked_for(held: Any) -> None:
    alone = _with_avx2(held(INT8, **GOOD), FAILS)
    with pytest.raises(OptionError, match=r"75\.0%.*ask for int8"):
        select_variant(alone, target="cpu", precision=Precision.AUTO, machine=AVX2)
    assert select_variant(alone, target="cpu", precision=Precision.AUTO, machine=NEW).variant.precision == "int8"
    assert "75.0%" in select_variant(alone, target="cpu", precision=Precision.INT8, machine=AVX2).why


def test_golden_texts_may_be_off_by_what_saturation_was_measured_to_cost(held: Any) -> None:
    """But not if it is beyond the gates: then a graph that was asked for should not pass for a right one."""
    for machine, clipped, limit in ((AVX2, PASSES, 1.4), (AVX2, FAILS, 0.02), (AVX2, None, 0.02), (NEW, PASSES, 0.02)):
        (int8,) = _with_avx2(held(INT8, **GOOD, max_abs_logit=0.01), clipped).variants
        assert allowed(as_computed_on(machine, int8)) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("kinds", "beyond", "target", "precision", "why"),
    [
        ((FP32, INT8, BF16), (), "cpu", "int8", "and on your texts, own.csv (labels agree in 99.3%"),
        (
            (FP32, INT8, BF16),
            ("int8",),
            "cpu",
            "bf16",
            "int8 does not pass the gates on your texts, own.csv (labels agree in 75.0%",
        ),
        ((FP32, INT8, BF16), ("int8", "bf16"), "cpu", "fp32", "and bf16 does not pass the gates on your texts, own.csv"),
        ((FP32, INT8, FP16), ("fp16",), "cuda", "fp32", "fp16 does not pass the gates on your texts, own.csv"),
        ((FP32, INT8, FP16), ("int8",), "cuda", "fp16", "for CUDA"),
    ],
)
def test_auto_reads_the_figures_on_the_users_texts(
    held: Any, kinds: Any, beyond: tuple[str, ...], target: str, precision: str, why: str
) -> None:
    good = {"int8": PASSES, "bf16": PASSES_BF16, "fp16": PASSES_BF16, "fp32": PASSES_BF16}
    manifest = held(*kinds, **GOOD)
    variants = tuple(
        dataclasses.replace(
            each,
            parity=good[each.precision],
            evaluation=Evaluation(texts="own.csv", parity=FAILS if each.precision in beyond else good[each.precision]),
        )
        for each in manifest.variants
    )
    manifest = dataclasses.replace(manifest, variants=variants)
    selection = select_variant(manifest, target=target, precision=Precision.AUTO, machine=NEW, bf16=True)
    assert selection.variant.precision == precision and why in selection.why
    for asked in beyond if target == "cpu" else ():  # but it runs where it is asked for
        chosen = select_variant(manifest, target=target, precision=Precision(asked), machine=NEW, bf16=True)
        assert chosen.variant.precision == asked


def _with_avx2(manifest: Any, clipped: Parity | None) -> Any:
    changed = (
        dataclasses.replace(each, parity_avx2=clipped if each.precision == "int8" else None) for each in manifest.variants
    )
    return dataclasses.replace(manifest, variants=tuple(changed))


def test_a_requested_precision_runs_its_file(make_artifact: Callable[..., Path], variant: Callable[..., Any]) -> None:
    folder = make_artifact(variants=(variant(), variant("cpu", "int8", **GOOD)))
    with Classifier.from_pretrained(folder, precision="int8") as clf:
        assert clf.runtime.file.name == "model_int8.onnx" and clf.runtime.precision == "int8"
