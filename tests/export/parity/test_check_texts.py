"""The texts that a graph is checked on: single ones, pairs, or both, as the model takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import special

from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.outputs import Function
from fusedbert.export.checkpoint import locate
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.heads import only_head
from fusedbert.export.parity import baseline as export_baseline
from fusedbert.export.parity.baseline import DirectBaseline, compute_baseline
from fusedbert.export.parity.compare import compare, undecided
from fusedbert.export.parity.reference import Trace, forward
from fusedbert.export.parity.texts import CheckSet, check_set
from fusedbert.export.tokenizer import Tokenization

EMBEDDED = Path(__file__).parents[3] / "models" / "sst2-mini"


def counts(checks: CheckSet) -> tuple[int, int]:
    """Count the single texts and the pairs, by their segments."""
    pairs = sum(1 in text.types for text in checks.texts)
    return len(checks.texts) - pairs, pairs


def baseline_of(checkpoint: Path, calibration: tuple[Text, ...] = ()) -> DirectBaseline:
    found = locate(str(checkpoint), revision=None, token=None, local_files_only=True)
    return compute_baseline(only_head(found), lambda _: None, rounded=True, calibration=calibration)


@pytest.mark.parametrize(
    ("by_order", "pairs", "expected"),
    [
        (False, None, (110, 28)),
        (False, False, (110, 2)),
        (False, True, (26, 28)),
        (True, None, (110, 77)),
        (True, False, (110, 51)),
    ],
)
def test_a_rounded_graph_is_checked_on_what_its_model_takes(
    by_order: bool, pairs: bool | None, expected: tuple[int, int]
) -> None:
    shape, _ = describe(read_config(EMBEDDED))
    checks = check_set(shape, Tokenization(EMBEDDED, shape), rounded=True, by_order=by_order, pairs=pairs)
    assert counts(checks) == expected
    assert {row for batch in checks.batches for row in batch} == set(range(len(checks.texts)))


def test_a_model_of_one_segment_is_checked_on_single_texts(make_checkpoint) -> None:
    checks = baseline_of(make_checkpoint("distilbert")).checks
    assert len(checks.texts) == 110 + 2  # of one segment, so that pairs look like single texts


def test_the_kind_that_the_model_is_surer_of_is_checked() -> None:
    baseline = baseline_of(EMBEDDED)  # trained on single sentences
    assert baseline.other is not None
    assert counts(baseline.checks) == (110, 2) and counts(baseline.other[0]) == (26, 28)
    gaps = [np.abs(np.diff(special.softmax(logits, axis=1))).mean() for logits in (baseline.reference, baseline.other[1])]
    assert gaps[0] > gaps[1]


def test_pairs_to_calibrate_with_say_that_a_model_takes_pairs() -> None:
    check_model_of_pairs(baseline_of(EMBEDDED, (Text(text="a", pair="b", index=0),)))


def test_a_model_that_is_surer_of_pairs_is_checked_on_over_a_hundred_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def sureness(logits: np.ndarray, _: str) -> float:
        sizes.append(len(logits))
        return -len(logits)  # the pairs are fewer

    monkeypatch.setattr(export_baseline, "sureness", sureness)
    check_model_of_pairs(baseline_of(EMBEDDED))
    assert sizes == [112, 54]  # the choice is made without the added pairs


def check_model_of_pairs(baseline: DirectBaseline) -> None:
    assert counts(baseline.checks) == (26, 103) and baseline.more == 75
    assert baseline.other is not None and counts(baseline.other[0]) == (110, 2)
    assert {row for batch in baseline.checks.batches for row in batch} == set(range(129))
    trace = Trace()
    again = forward(baseline.architecture, baseline.weights, [*baseline.checks.texts, *baseline.other[0].texts], trace)
    assert np.allclose(again[:129], baseline.reference, atol=1e-9)  # the rows are those of its texts
    assert np.allclose(again[129:], baseline.other[1], atol=1e-9)
    assert baseline.terms is not None and trace.terms is not None
    assert np.allclose(baseline.terms, trace.terms) and baseline.max_activation == pytest.approx(trace.max_activation)


def test_pairs_for_a_model_of_one_segment_are_over_a_hundred_texts_too(make_checkpoint) -> None:
    baseline = baseline_of(make_checkpoint("distilbert"), (Text(text="a", pair="b", index=0),))
    assert len(baseline.checks.texts) == len(baseline.reference) == 129
    again = forward(baseline.architecture, baseline.weights, baseline.checks.texts)
    assert np.allclose(again, baseline.reference, atol=1e-9)


def test_a_text_without_an_opinion_has_no_label_to_keep() -> None:
    reference = np.array([[0.0, 0.03], [0.0, 0.05], [3.0, 0.0]])  # apart by 0.015, 0.025 and 0.905
    assert undecided(reference, Function.SOFTMAX).tolist() == [True, False, False]
    swapped = list(enumerate(reference[:, ::-1]))
    assert compare(swapped, reference, "single_label_classification").label_agreement == pytest.approx(1 / 3, abs=1e-3)
    yes_or_no = np.array([[5.0, 0.03], [5.0, 0.05]])  # twice as far from 0.5: 0.015 and 0.025
    assert undecided(yes_or_no, Function.SIGMOID).tolist() == [True, False]
