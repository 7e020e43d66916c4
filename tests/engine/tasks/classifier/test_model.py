"""The loaded model that ``Classifier``, ``Batcher`` and scoring share: its steps give what a call gives."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fusedbert.engine import Classifier, ClosedError, OptionError, Window
from fusedbert.engine.errors import check_integer, check_member
from fusedbert.engine.model import Model
from fusedbert.engine.text.inputs import Aggregate, Cut, LongText, check_items
from fusedbert.engine.text.outputs import Function

TEXTS = ["good movie", "bad", ("good", "bad"), "the plot was very dull", "good " * 90]


@pytest.fixture
def model(artifact: Path) -> Iterator[Model]:
    with Classifier.from_pretrained(artifact, threads=1, long_text=Window(stride=4)) as clf:
        yield clf.model


def test_the_steps_of_a_model_give_what_a_call_gives(model: Model) -> None:
    texts = check_items(TEXTS)
    expected = model.logits(texts)
    tokens = model.tokenize(texts, Cut(long_text=LongText.WINDOW))
    assert [len(rows) for rows in tokens.by_text()] == [1, 1, 1, 1, 4]
    assert [text.index for text in tokens.owners(texts)] == [0, 1, 2, 3, 4, 4, 4, 4]
    logits, padded = model.forward(texts, tokens)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert padded >= sum(len(row.ids) for row in tokens.rows)
    assert sorted(index for batch in model.plan(tokens.rows) for index in batch) == list(range(len(tokens.rows)))
    np.testing.assert_allclose(model.run(texts[:4], tokens.rows[:4]), expected[:4], atol=1e-6)
    stats = model.counters.snapshot()
    assert (stats.texts, stats.rows, stats.windowed) == (10, 8 + 8 + 4, 2)


def test_options_of_a_call_are_resolved(model: Model) -> None:
    assert [model.call({"truncation": each}).cut.long_text for each in (None, True, False)] == [
        None,
        LongText.TRUNCATE,
        LongText.ERROR,
    ]
    assert model.function_for(None) is Function.SOFTMAX and model.function_for("NONE") is Function.NONE
    with pytest.raises(OptionError, match="truncation is 1: give True, False, or one of longest_first"):
        model.call({"truncation": 1})  # type: ignore[typeddict-item]


def test_an_unpickled_model_is_loaded_again(model: Model, reference: Callable[..., np.ndarray]) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert again.options == model.options and again.counters.snapshot().texts == 0
    np.testing.assert_allclose(again.logits(check_items(["good movie"])), reference(["good movie"]), atol=1e-5)


def test_a_closed_model_is_refused(model: Model) -> None:
    model.close()
    for call in (model.open, model.attention_graph, lambda: model.logits(check_items(["good"])), lambda: pickle.dumps(model)):
        with pytest.raises(ClosedError, match="from_pretrained"):
            call()
    assert repr(model).endswith(", closed)")


def test_options_are_checked() -> None:
    assert check_member(Aggregate, "aggregate", "max") is Aggregate.MAX
    for value in ("median", None, 3, []):
        with pytest.raises(OptionError, match=r"aggregate is .*: give one of mean, max"):
            check_member(Aggregate, "aggregate", value)
    check_integer("threads", 1)
    check_integer("threads", None, optional=True)
    for value in (0, True, 1.0, "1", None):
        with pytest.raises(OptionError, match=r"threads is .*: give an integer from 1 up"):
            check_integer("threads", value)
