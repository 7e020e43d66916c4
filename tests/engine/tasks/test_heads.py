"""Several heads in the engine: answers by name, each head as a classifier, one tokenization and one run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edits import edit_config

from fusedbert.engine import (
    Batcher,
    CheckpointError,
    Classifier,
    ClosedError,
    InputError,
    MultiHeadClassifier,
    OptionError,
    Scorer,
    Window,
    ZeroShot,
    score_file,
)
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import Tokens
from fusedbert.export import export_checkpoint

TEXTS = ["good movie", "bad !", "", "the movie was not very good , but the movies was not bad . " * 2, "very"]


@pytest.fixture(scope="module")
def sources(head_sources: dict[str, Path]) -> dict[str, Path]:
    return head_sources


@pytest.fixture(scope="module")
def both(heads_artifact: Path) -> Path:
    return heads_artifact


@pytest.fixture
def clf(both: Path) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier.from_pretrained(both, threads=1) as clf:
        yield clf


@pytest.fixture(scope="module")
def alone(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """Each head's own artifact, loaded."""
    folder = tmp_path_factory.mktemp("alone")
    found = {}
    for name, source in sources.items():
        threshold = 0.6 if name == "topics" else None
        export_checkpoint(source, folder / name, target="fp32", threshold=threshold, required=False)
        found[name] = Classifier.from_pretrained(folder / name, threads=1)
    return found


def same(found: Any, expected: Any) -> None:
    """Compare results of other batches, which in fp32 may differ by rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def test_answers_by_name_are_those_of_each_heads_artifact(clf: MultiHeadClassifier, alone: dict[str, Classifier]) -> None:
    assert list(clf.heads) == list(alone)
    assert clf(TEXTS) == [{name: one(TEXTS)[i] for name, one in alone.items()} for i in range(len(TEXTS))]
    assert clf(TEXTS[0], top_k=None) == {name: one(TEXTS[0], top_k=None) for name, one in alone.items()}
    assert clf((TEXTS[0], TEXTS[1])) == {name: one((TEXTS[0], TEXTS[1])) for name, one in alone.items()}
    assert clf([]) == []
    for found in (list(clf.stream(iter(TEXTS))), list(clf(text for text in TEXTS))):
        same(found, clf(TEXTS))
    for name, one in alone.items():
        np.testing.assert_array_equal(clf.decision_function(TEXTS)[name], one.decision_function(TEXTS))
        np.testing.assert_array_equal(clf.predict_proba(TEXTS)[name], one.predict_proba(TEXTS))


def test_a_head_is_a_classifier(clf: MultiHeadClassifier, alone: dict[str, Classifier]) -> None:
    for name, one in alone.items():
        head = clf.heads[name]
        assert head(TEXTS, top_k=None) == one(TEXTS, top_k=None)
        assert (head.classes_, head.problem_type, head.thresholds) == (one.classes_, one.problem_type, one.thresholds)
        assert head.windows(TEXTS[3], window=Window(stride=3)) == one.windows(TEXTS[3], window=Window(stride=3))
        if name != "stars":
            assert head.predict(TEXTS) == one.predict(TEXTS)
    assert clf.heads["stars"].rank("q", TEXTS) == alone["stars"].rank("q", TEXTS)


def test_long_texts_are_read_in_windows_by_every_head(both: Path, alone: dict[str, Classifier]) -> None:
    for window in ("window", Window(stride=4, aggregate="max")):
        options = {"max_length": 16, "long_text": window, "threads": 1}
        with MultiHeadClassifier.from_pretrained(both, **options) as several:
            found = several.decision_function(TEXTS)
            assert several.stats.windowed > 0
            for name, one in alone.items():
                with Classifier.from_pretrained(one.model.source.folder, **options) as own:
                    np.testing.assert_array_equal(found[name], own.decision_function(TEXTS))


def test_one_text_is_tokenized_and_run_once(clf: MultiHeadClassifier) -> None:
    clf(TEXTS)
    assert (clf.stats.texts, clf.heads["mood"].stats.texts) == (len(TEXTS), len(TEXTS))


def test_a_threshold_counts_for_heads_of_many_labels(clf: MultiHeadClassifier, alone: dict[str, Classifier]) -> None:
    found = clf(TEXTS[:2], threshold=0.1)
    assert [each["topics"] for each in found] == alone["topics"](TEXTS[:2], threshold=0.1)
    assert [each["mood"] for each in found] == alone["mood"](TEXTS[:2])
    numbers: list[Any] = [np.float32(0.1), np.float64(0.1), np.int64(1)]
    for number in numbers:
        assert [each["topics"] for each in clf(TEXTS, threshold=number)] == alone["topics"](TEXTS, threshold=number)
    others: list[Any] = [{"plot": 0.5}, [0.5, 0.5, 0.5], True, np.True_]
    for threshold in others:
        with pytest.raises(OptionError, match="with several heads give one number"):
            clf(TEXTS, threshold=threshold)


def test_a_batcher_answers_by_name(clf: MultiHeadClassifier) -> None:
    with Batcher(clf) as batcher:
        futures = [batcher.submit(text, top_k=None) for text in TEXTS * 4]
        same([future.result() for future in futures], clf(TEXTS, top_k=None) * 4)


def test_what_only_one_head_has_is_refused_with_the_way_out(clf: MultiHeadClassifier, both: Path, alone) -> None:
    with pytest.raises(OptionError, match=r"\(mood, topics, stars\), of texts: use MultiHeadClassifier\.from_pretrained"):
        Classifier.from_pretrained(both)
    with pytest.raises(OptionError, match=r"has one head: use Classifier\.from_pretrained"):
        MultiHeadClassifier.from_pretrained(alone["mood"].model.source.folder)
    with pytest.raises(OptionError, match=r"regressions \(stars\) have no classes .* clf\.heads\[NAME\]\.predict"):
        clf.predict(TEXTS)
    with pytest.raises(
        OptionError, match=r"several heads \(mood, topics, stars\), of texts: give ZeroShot one of them, clf\.heads\[NAME\]"
    ):
        ZeroShot(clf)  # type: ignore[arg-type]
    with Batcher(clf) as batcher, pytest.raises(OptionError, match=r"of one of them, Batcher\(clf\.heads\[NAME\]\)"):
        batcher.rank("good ?", TEXTS)
    with Batcher(clf.heads["mood"]) as batcher:
        same(batcher.rank("good ?", TEXTS).result(), clf.heads["mood"].rank("good ?", TEXTS))
    with (
        pytest.warns(UserWarning, match="entail"),
        pytest.raises(OptionError, match="found a ZeroShot: a service calls a Zero"),
    ):
        Batcher(ZeroShot(clf.heads["mood"]))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="attentions are those of an artifact with one head"):
        clf.heads["mood"].attentions("fine")
    with pytest.raises(OptionError, match="label is 'POSITIVE', and several heads have labels"):
        MultiHeadClassifier.from_pretrained(both, long_text=Window(aggregate="max", label="POSITIVE"))
    with pytest.raises(InputError, match="text 1 is None"):
        clf(["a", None])  # type: ignore[list-item]


def test_a_copy_by_pickle_answers_and_a_closed_one_says_so(both: Path) -> None:
    clf = MultiHeadClassifier.from_pretrained(both, threads=1)
    copy = pickle.loads(pickle.dumps(clf))
    head = pickle.loads(pickle.dumps(clf.heads["topics"]))
    assert (copy(TEXTS), head(TEXTS)) == (clf(TEXTS), clf.heads["topics"](TEXTS))
    clf.close()
    for call in (clf, clf.heads["mood"]):
        with pytest.raises(ClosedError):
            call("fine")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork exists only on Unix")
@pytest.mark.filterwarnings("ignore:none of the model's labels")
def test_a_forked_childs_heads_have_its_own_tokenizer(clf: MultiHeadClassifier) -> None:
    head, labels = clf.heads["mood"], ["plot", "price"]
    zero_shot = ZeroShot(head)
    expected, pairs, before = head(TEXTS), zero_shot("good movie", labels), clf.model.tokenizer
    child = os.fork()
    if not child:
        try:
            done = zero_shot("good movie", labels) == pairs and head(TEXTS) == expected
            own = head.model.tokenizer is clf.model.tokenizer and head.model.tokenizer is not before
            os._exit(0 if done and own else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_head_counts_and_warns_as_the_whole_model(both: Path) -> None:
    with MultiHeadClassifier.from_pretrained(both, max_length=8, threads=1) as clf:
        model, texts = clf.heads["mood"].model, check_items([TEXTS[3]])
        tokens = Tokens(rows=model.tokenizer.encode(texts))
        with pytest.warns(UserWarning, match="text 0 has more tokens than max_length, 8"):
            model.count(texts, tokens, time.perf_counter())
        assert clf.stats.truncated == clf.stats.texts == 1


def test_the_command_shows_every_head(both: Path, clf: MultiHeadClassifier, fusedbert) -> None:
    table = fusedbert("classify", "-m", both, "good movie !", check=True).stdout
    assert table.startswith("mood: ") and "  topics: " in table and table.endswith("  good movie !\n")
    done = fusedbert("classify", "-m", both, "--format", "jsonl", "good movie !", check=True)
    found = json.loads(done.stdout)
    expected = clf("good movie !")
    assert {name: {"label": head["label"], "score": head["score"]} for name, head in found["heads"].items()} == {
        name: {"label": each["label"], "score": pytest.approx(each["score"], abs=1e-6)} for name, each in expected.items()
    }
    assert list(found["heads"]["topics"]["scores"]) == [each["label"] for each in clf("good movie !", top_k=None)["topics"]]
    refused = fusedbert("classify", "-m", both, "--labels", "a,b", "x")
    assert refused.returncode == 2 and "--labels needs a model of one head" in refused.stderr


def test_score_adds_the_columns_of_every_head(both: Path, clf: MultiHeadClassifier, tmp_path: Path, fusedbert) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    options: dict[str, Any] = {"threads": 1, "probabilities": True, "threshold": np.float64(0.3)}
    summary = score_file(rows, tmp_path / "out.jsonl", model=both, **options)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    scores, results = clf.predict_proba(TEXTS), clf(TEXTS, threshold=0.3)
    kept = Counter[str]()
    for i, (row, result) in enumerate(zip(found, results, strict=True)):
        assert row["mood_label"] == result["mood"]["label"]
        assert row["mood_p_POSITIVE"] == pytest.approx(float(scores["mood"][i, 1]), abs=1e-5)
        assert row["stars_score"] == pytest.approx(result["stars"]["score"], abs=1e-5)
        assert sorted(row["topics_label"]) == sorted(each["label"] for each in result["topics"])
        kept.update([f"mood/{row['mood_label']}", *(f"topics/{label}" for label in row["topics_label"])])
    names = ["text", "mood_label", "mood_score", "mood_p_NEGATIVE", "mood_p_POSITIVE", "topics_label", "topics_score"]
    names += ["topics_p_plot", "topics_p_music", "topics_p_price", "stars_score", "truncated"]
    assert list(found[0]) == names
    command = ("score", rows, "-o", tmp_path / "again.jsonl", "-m", both, "--threads", 1, "--probabilities", "--threshold", 0.3)
    fusedbert(*command, check=True)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert summary.labels == dict(kept)
    scorer = Scorer(both, threads=1)
    batch = scorer({"text": TEXTS})
    assert list(batch["mood_label"]) == [each["mood"]["label"] for each in results]


def test_options_that_no_head_has_are_refused_in_score(both: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\nfine\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"threshold": {"plot": 0.5}}, "threshold is one number where there are several heads"),
        ({"threshold": np.True_}, "threshold is one number where there are several heads"),
        ({"candidate_labels": "a, b"}, "candidate_labels needs a model of one head"),
        ({"aggregation_strategy": "first"}, "aggregation_strategy is for a token classifier"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            score_file(tmp_path / "rows.csv", tmp_path / "out.csv", model=both, **options)


def test_commands_of_one_head_say_what_to_do(both: Path, clf: MultiHeadClassifier, fusedbert, tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join(text for text in TEXTS if text))
    done = fusedbert("rank", "very", documents, "-m", both, "--head", "stars", "--format", "jsonl", check=True)
    expected = clf.heads["stars"].rank("very", [text for text in TEXTS if text])
    assert [json.loads(line)["corpus_id"] for line in done.stdout.splitlines()] == [each["corpus_id"] for each in expected]
    for arguments, message in (
        (
            ("rank", "very", documents, "-m", both),
            "the artifact has the heads mood, topics, stars: give --head",
        ),
        (("rank", "very", documents, "--head", "mood"), "this model has one: leave it out"),
        (("explain", "fine", "--json", "-m", both), "has several heads: explain the checkpoint of one of them"),
        (("bench", "rank", "-m", both), "a ranking is by one: export its checkpoint separately"),
    ):
        refused = fusedbert(*arguments)
        assert refused.returncode == 2 and message in refused.stderr.splitlines()[-1]


KIND = "torch.nn.modules.{}"


@pytest.mark.parametrize(
    "stated",
    [
        {"mood": "activation.Softmax", "topics": "activation.Sigmoid", "stars": "linear.Identity"},
        {"mood": "activation.Sigmoid", "topics": None, "stars": None},
    ],
    ids=["all", "one"],
)
def test_scores_of_pairs_are_by_each_heads_own_activation(
    sources: dict[str, Path], tmp_path: Path, stated: dict[str, str | None]
) -> None:
    pairs = [("was it good ?", text) for text in TEXTS]
    expected = {}
    own = {name: Path(shutil.copytree(source, tmp_path / "sources" / name)) for name, source in sources.items()}
    for (name, source), kind in zip(own.items(), stated.values(), strict=True):
        if kind:
            edit_config(source, sentence_transformers={"activation_fn": KIND.format(kind)})
        export_checkpoint(source, tmp_path / name, target="fp32", required=False)
        with Classifier.from_pretrained(tmp_path / name, threads=1) as one:
            ranking = None if name == "topics" else one.rank("was it good ?", TEXTS)
            expected[name] = one.predict_pairs(pairs), ranking
    for i, names in enumerate((list(own), list(reversed(own)))):
        folder = tmp_path / f"both{i}"
        export_checkpoint(None, folder, heads={name: own[name] for name in names}, target="fp32", required=False)
        assert "sentence_transformers" not in json.loads((folder / "config.json").read_text())
        with MultiHeadClassifier.from_pretrained(folder, threads=1) as clf:
            for name, (scores, ranking) in expected.items():
                np.testing.assert_array_equal(clf.heads[name].predict_pairs(pairs), scores)
                if ranking is not None:
                    assert clf.heads[name].rank("was it good ?", TEXTS) == ranking


def test_a_head_with_another_activation_is_refused_at_its_export(sources: dict[str, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(sources["topics"], tmp_path / "topics"))
    edit_config(other, sbert_ce_default_activation_function="torch.nn.Tanh")
    with pytest.raises(
        CheckpointError, match=r"= 'torch\.nn\.Tanh', expected one of .*Softmax: take the one that fits, or leave"
    ):
        export_checkpoint(None, tmp_path / "both", heads={"mood": sources["mood"], "topics": other}, target="fp32")


def test_probabilities_are_of_the_heads_that_have_them(sources: dict[str, Path], tmp_path: Path) -> None:
    heads = {"mood": sources["mood"], "stars": sources["stars"]}
    heads["fit"] = Path(shutil.copytree(sources["stars"], tmp_path / "fit"))  # a reranker whose scores are logits
    edit_config(heads["fit"], problem_type=None, sbert_ce_default_activation_function=KIND.format("linear.Identity"))
    rows, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("text\ngood movie\n")

    def keys(names: tuple[str, ...], **options: Any) -> list[str]:
        folder = tmp_path / "-".join(names)
        if not folder.exists():
            export_checkpoint(None, folder, heads={name: heads[name] for name in names}, target="fp32", required=False)
        score_file(rows, out, model=folder, probabilities=True, force=True, threads=1, **options)
        return [key for key in json.loads(out.read_text()) if "_p_" in key or "_score" in key]

    mood = ["mood_score", "mood_p_NEGATIVE", "mood_p_POSITIVE"]
    assert keys(("mood", "fit")) == [*mood, "fit_score"]
    assert keys(("mood", "fit"), function_to_apply="sigmoid") == [*mood, "fit_score", "fit_p_stars"]
    with pytest.raises(OptionError, match="no head has probabilities"):
        keys(("stars", "fit"))
