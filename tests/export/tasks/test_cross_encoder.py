"""Rankings and scores of pairs equal those of sentence-transformers' CrossEncoder, for each family that is built directly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier, OptionError
from fusedbert.export import export_checkpoint

FAMILIES = [
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "deberta-v2", "mpnet", "albert", "modernbert"),
]
LENGTH = 24
IDENTITY = "torch.nn.modules.linear.Identity"
QUERY = "is the movie good ?"
DOCUMENTS = [
    "the movie was really good !",
    "boring",
    "",
    "i hated it , but we loved it . 1 2 3",
    "the film is great and bland . " * 9,
    "Café 很好 🙂 naïve",
    "boring",  # a tie
    "a b c d e f g h j k l m n o p q r s t u v w",
    "not bad",
]
LONG = "is it good ? was it bad ? " * 5


@pytest.fixture
def both(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., tuple[Classifier, Any]]]:
    """Return a function that makes the same reranker twice: fusedbert's, in fp32, and sentence-transformers'."""
    made: list[Classifier] = []

    def make(family: str, *, activation: str | None = None, **config: Any) -> tuple[Classifier, Any]:
        from sentence_transformers import CrossEncoder

        folder = Path(shutil.copytree(make_checkpoint(family, **config), tmp_path / f"model{len(made)}"))
        if activation is not None:
            entries = json.loads((folder / "config.json").read_text())
            entries["sentence_transformers"] = {"activation_fn": activation}
            (folder / "config.json").write_text(json.dumps(entries))
        export_checkpoint(folder, tmp_path / f"artifact{len(made)}", target="fp32")
        made.append(Classifier.from_pretrained(tmp_path / f"artifact{len(made)}", max_length=LENGTH))
        return made[-1], CrossEncoder(str(folder), device="cpu", max_length=LENGTH)

    yield make
    for classifier in made:
        classifier.close()


def assert_same(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    assert [each["corpus_id"] for each in ours] == [each["corpus_id"] for each in theirs]
    assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=2e-5)
    assert [each.get("text") for each in ours] == [each.get("text") for each in theirs]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ranking_is_that_of_cross_encoder(both: Callable[..., Any], family: str) -> None:
    ours, theirs = both(family, num_labels=1)
    assert_same(ours.rank(QUERY, DOCUMENTS), theirs.rank(QUERY, DOCUMENTS))
    assert_same(ours.rank(QUERY, DOCUMENTS, 3, True), theirs.rank(QUERY, DOCUMENTS, 3, True))
    assert_same(ours.rank(LONG, DOCUMENTS), theirs.rank(LONG, DOCUMENTS))
    assert_same(ours.rank("", DOCUMENTS[:1]), theirs.rank("", DOCUMENTS[:1]))
    assert ours.rank(QUERY, []) == theirs.rank(QUERY, []) == []
    assert ours.stats.truncated > 0 and np.ptp([each["score"] for each in ours.rank(QUERY, DOCUMENTS)]) > 1e-3
    pairs = [(QUERY, document) for document in DOCUMENTS] + [(LONG, LONG), ("a", "b")]
    scores = ours.predict_pairs(pairs)
    assert scores.shape == (11,) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, theirs.predict(pairs), atol=2e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_an_activation_that_the_checkpoint_states_is_heeded(both: Callable[..., Any], family: str) -> None:
    ours, theirs = both(family, num_labels=1, activation=IDENTITY)
    assert_same(ours.rank(QUERY, DOCUMENTS), theirs.rank(QUERY, DOCUMENTS))
    assert ours.rank(QUERY, DOCUMENTS) != ours.rank(QUERY, DOCUMENTS, function_to_apply="sigmoid")
    import torch

    for function in (torch.nn.Sigmoid(), torch.nn.Identity()):
        assert_same(ours.rank(QUERY, DOCUMENTS, activation_fn=function), theirs.rank(QUERY, DOCUMENTS, activation_fn=function))


@pytest.mark.parametrize(
    "config",
    [{}, {"problem_type": "regression"}, {"activation": IDENTITY, "problem_type": "regression"}],
    ids=["none", "regression", "regression with Identity"],
)
def test_single_pairs_are_scalars(both: Callable[..., Any], config: dict[str, Any]) -> None:
    ours, theirs = both("bert", num_labels=1, **config)
    for pair in (("a movie", "so good"), ["a movie", "so good"], np.array(["a movie", "so good"])):
        found, expected = ours.predict_pairs(pair), theirs.predict(pair)
        assert np.ndim(found) == np.ndim(expected) == 0
        assert found == pytest.approx(float(expected), abs=2e-5)
    table = np.array([["a movie", "so good"], ["a film", "bad"]])
    np.testing.assert_allclose(ours.predict_pairs(table), theirs.predict(table), atol=2e-5)
    assert len(ours.predict_pairs([])) == len(theirs.predict([])) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_several_labels_have_their_logits(both: Callable[..., Any], family: str) -> None:
    pairs = [(QUERY, document) for document in DOCUMENTS]
    for labels in (2, 3) if family == "bert" else (2,):
        ours, theirs = both(family, num_labels=labels)
        np.testing.assert_allclose(ours.predict_pairs(pairs), theirs.predict(pairs), atol=5e-5)
        np.testing.assert_allclose(ours.predict_pairs(pairs[0]), theirs.predict(pairs[0]), atol=5e-5)
        probabilities = theirs.predict(pairs, apply_softmax=True)
        np.testing.assert_allclose(ours.predict_pairs(pairs, apply_softmax=True), probabilities, atol=2e-5)
        if labels == 2:
            found = ours.rank(QUERY, DOCUMENTS)
            order = np.argsort(-probabilities[:, 1], kind="stable").tolist()
            assert [each["corpus_id"] for each in found] == order
            assert [each["score"] for each in found] == pytest.approx(probabilities[order, 1], abs=2e-5)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")  # of torch's Softmax without one
@pytest.mark.parametrize(("kind", "labels"), [("Sigmoid", 3), ("Softmax", 3), ("Softmax", 2)])
def test_several_labels_with_a_stated_activation(both: Callable[..., Any], kind: str, labels: int) -> None:
    ours, theirs = both("bert", num_labels=labels, activation=f"torch.nn.modules.activation.{kind}")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    np.testing.assert_allclose(ours.predict_pairs(pairs), theirs.predict(pairs), atol=2e-5)
    with pytest.raises(OptionError, match="would take the softmax of"):
        ours.predict_pairs(pairs, apply_softmax=True)


def test_another_activation_of_several_labels_needs_a_calls_word(both: Callable[..., Any]) -> None:
    ours, theirs = both("bert", num_labels=2, activation="torch.nn.modules.activation.Tanh")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    with pytest.raises(
        OptionError, match=r"'torch\.nn\.modules\.activation\.Tanh'.*give function_to_apply=, one of sigmoid, softmax, none"
    ):
        ours.predict_pairs(pairs)
    np.testing.assert_allclose(np.tanh(ours.predict_pairs(pairs, function_to_apply="none")), theirs.predict(pairs), atol=2e-5)


def test_a_trained_model_ranks_as_cross_encoder_scores(checkpoint: Path, embedded: Path) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(checkpoint), device="cpu", model_kwargs={"dtype": "float32"})
    documents = ["A waste of time.", "I loved it.", "Fine, though far too long.", "电影 很好", "I loved it.", "Dull. " * 400]
    pairs = [("Was the film any good?", document) for document in documents]
    with Classifier.from_pretrained(embedded, precision="fp32") as ours:
        np.testing.assert_allclose(ours.predict_pairs(pairs), theirs.predict(pairs), atol=2e-5)
        probabilities = theirs.predict(pairs, apply_softmax=True)
        found = ours.rank("Was the film any good?", documents)
        assert [each["corpus_id"] for each in found] == np.argsort(-probabilities[:, 1], kind="stable").tolist()
    with Classifier.from_pretrained(embedded, precision="int8") as ours:
        scores = [each["score"] for each in sorted(ours.rank(*_split(pairs)), key=lambda each: each["corpus_id"])]
        np.testing.assert_allclose(scores, probabilities[:, 1], atol=0.05)


def _split(pairs: list[tuple[str, str]]) -> tuple[str, list[str]]:
    return pairs[0][0], [document for _, document in pairs]
