import dataclasses

import numpy as np
import pytest

from fusedbert.bench.engines.base import Tolerance
from fusedbert.bench.engines.batches import pad, parse_shapes
from fusedbert.bench.run.reference import FLOAT64, draw, float64_reference, judge
from fusedbert.bench.run.setup import find_model
from fusedbert.engine import Classifier
from fusedbert.engine.errors import OptionError
from fusedbert.engine.load import Options
from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

CPU = Options.parse(device="cpu", threads=1)


def logits(checks, change=lambda x: x):
    """Return the reference as an engine's answer, with further rows after the counted ones."""
    found, start = [], 0
    for batch, counted in zip(checks.batches, checks.counted, strict=True):
        rows = change(checks.reference[start : start + counted])
        found.append([*rows.tolist(), *[[9.0, 9.0]] * (len(batch["ids"]) - counted)])
        start += counted
    return found


@pytest.mark.parametrize("kind", list(Tolerance))
def test_the_reference_is_right_and_its_negation_is_wrong(checks, kind):
    assert judge(logits(checks), checks, kind).right
    verdict = judge(logits(checks, lambda x: -x), checks, kind)
    assert not verdict.right
    assert "off the reference" in verdict.why


@pytest.mark.parametrize(
    ("kind", "error", "right"),
    [
        (Tolerance.FP32, 1e-4, True),
        (Tolerance.FP32, 0.01, False),
        (Tolerance.REDUCED, 0.05, True),
        (Tolerance.REDUCED, 1.0, False),
        (Tolerance.INT8, 0.3, True),
        (Tolerance.INT8, 2.0, False),
    ],
)
def test_the_tolerance_follows_the_precision(checks, kind, error, right):
    verdict = judge(logits(checks, lambda x: x + np.array([error, 0.0])), checks, kind)
    assert verdict.right is right
    assert verdict.max_abs_logit == pytest.approx(error)
    assert (verdict.max_abs_logit <= verdict.tolerance) is right


def test_labels_count_where_the_reference_is_clear(checks):
    close = dataclasses.replace(checks, reference=np.tile([3.0, 3.01], (12, 1)))
    assert judge(logits(close, lambda x: x[:, ::-1]), close, Tolerance.INT8).label_agreement == 1.0
    clear = dataclasses.replace(checks, reference=np.tile([0.0, 0.6], (12, 1)))
    assert judge(logits(clear, lambda x: x[:, ::-1]), clear, Tolerance.INT8).label_agreement == 0.0
    many = dataclasses.replace(clear, problem_type="multi_label_classification")
    assert judge(logits(many, lambda x: x - 1.0), many, Tolerance.INT8).label_agreement == 0.0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("kind", list(Tolerance))
def test_a_regression_is_compared_by_its_spread(checks, unit, kind):
    values = (20.0 + np.arange(12.0)[:, None] / 3) * unit  # scores of a reranker: around 20, and a few units apart
    one = dataclasses.replace(checks, reference=values)
    assert judge(logits(one), one, kind).right
    for change in (lambda x: x + 2.2 * unit, lambda x: 0 * x + values.mean()):
        verdict = judge(logits(one, change), one, kind)
        assert not verdict.right and verdict.label_agreement == 1.0
    two = dataclasses.replace(checks, reference=np.hstack([values * 1e6, values]), problem_type="regression")
    assert judge(logits(two), two, kind).right
    assert not judge(logits(two, lambda x: x + np.array([0.0, 2.2 * unit])), two, kind).right  # wrong only in the small output
    first = dataclasses.replace(one, reference=values[:1], counted=(1, 0, 0))  # one text, as at a start
    assert judge(logits(first), first, kind).right and not judge(logits(first, lambda x: 2 * x), first, kind).right


def test_another_number_of_labels_and_nan_are_wrong(checks):
    three = [[[*row, 0.0] for row in batch] for batch in logits(checks)]
    assert "3 logits a text, the model has 2 labels" in judge(three, checks, Tolerance.INT8).why
    assert "NaN" in judge(logits(checks, lambda x: x * np.inf), checks, Tolerance.FP32).why


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEDBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield find_model(str(checkpoint), None, CPU)


def test_the_float64_reference_agrees_with_the_classifier_and_is_kept(model, checkpoint):
    checks = draw(model, parse_shapes("1x16,2x64"))
    found = float64_reference(model, checks)
    assert found is not None and found.computed_by == FLOAT64
    texts = [*CHECK_TEXTS, *ROUNDING_TEXTS]
    with Classifier.from_pretrained(model.artifact, device="cpu", precision="fp32", threads=1) as clf:
        expected = clf.decision_function(texts)
    assert np.abs(found.reference[: len(texts)] - expected).max() <= 1e-4
    assert len(found.reference) == len(texts) + 1 + 2
    again = float64_reference(dataclasses.replace(model, checkpoint=checkpoint / "not-there"), checks)
    assert again is not None and np.array_equal(again.reference, found.reference)  # read, not computed
    assert float64_reference(dataclasses.replace(model, checkpoint=None), checks) is None


def test_only_the_first_rows_of_a_batch_count(checks):
    assert np.array_equal(checks.count(logits(checks)), checks.reference)


@pytest.mark.parametrize("shape", ["1x16", "8x16", "2x64", "32x64"])
def test_a_process_of_one_shape_is_checked_in_it_without_padding(model, fakes, shape):
    checks = draw(model, parse_shapes("1x16,8x16,2x64,32x64"))
    rows = [ids for batch, counted in zip(checks.batches, checks.counted, strict=True) for ids in batch["ids"][:counted]]
    checks = dataclasses.replace(checks, reference=np.array([fakes.answer(ids) for ids in rows]))
    (wanted,) = parse_shapes(shape)
    its = checks.of_shape(wanted)
    padded = [pad(batch["ids"], batch["types"], its.pad) for batch in its.batches]
    assert all(batch.input_ids.shape == (wanted.batch, wanted.tokens) and batch.attention_mask.all() for batch in padded)
    found = [[fakes.answer(ids) for ids in each.input_ids] for each in padded]
    assert np.array_equal(its.count(found), its.reference)
    assert len(its.reference) == sum(len(ids) == wanted.tokens for ids in rows) > {16: 8, 64: 17}[wanted.tokens]  # each once
    strict, loose = judge(found, its, Tolerance.FP32), judge(logits(checks), checks, Tolerance.FP32)
    assert strict.right and strict.tolerance == loose.tolerance


def test_a_big_batch_is_checked_in_part(model):
    checks = draw(model, parse_shapes("64x64"))
    assert len(checks.batches[-1]["ids"]) == 64
    assert checks.counted[-1] == 16


def test_batches_mix_lengths_so_that_a_mask_matters(model):
    checks = draw(model, ())
    assert max(len(set(map(len, batch["ids"]))) for batch in checks.batches) > 5
    assert sum(checks.counted) == len(CHECK_TEXTS) + len(ROUNDING_TEXTS)


def test_the_checkpoint_is_found_or_given_and_another_one_is_refused(model, checkpoint, tmp_path):
    assert model.checkpoint == checkpoint
    artifact = str(model.artifact)
    assert find_model(artifact, None, CPU).checkpoint is None
    assert find_model(artifact, checkpoint, CPU).checkpoint == checkpoint
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(OptionError, match=r"model\.safetensors is not what .* was made from"):
        find_model(artifact, tmp_path, CPU)
