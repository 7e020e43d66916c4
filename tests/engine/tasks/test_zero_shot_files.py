"""Candidate labels in ``score``, ``Scorer`` and ``classify``: the answers of ``ZeroShot``, as columns and lines."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fusedbert.engine import InputError, OptionError, Scorer, ZeroShot, score_file
from fusedbert.engine.cli.classify import classify
from fusedbert.engine.cli.score import score

NLI = ("contradiction", "neutral", "entailment")
LABELS = ["music", "the film", "awful plot"]
TEXTS = [f"{'very ' * (n % 4)}good film {n % 23}, {'not ' * (n % 2)}dull" for n in range(60)] + ["very " * 50]


@pytest.fixture
def artifact(make_artifact: Callable[..., Path]) -> Path:
    return make_artifact(NLI)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([n, text] for n, text in enumerate(TEXTS))])
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("template", [None, "It was {}."])
@pytest.mark.parametrize("labels", [LABELS, "music, the film, awful plot", ["music"]])
def test_a_file_gets_the_answers_of_zero_shot(
    artifact: Path, source: Path, tmp_path: Path, labels: Any, template: str | None
) -> None:
    output = tmp_path / "out.csv"
    summary = score_file(
        source, output, model=artifact, candidate_labels=labels, hypothesis_template=template, probabilities=True
    )
    found = rows_of(output)
    with ZeroShot.from_pretrained(artifact) as judge:
        expected = judge(TEXTS, labels, template or "This example is {}.")
    names = list(expected[0]["labels"])
    assert list(found[0])[:4] == ["id", "text", "label", "score"] and list(found[0])[-1] == "truncated"
    assert sorted(list(found[0])[4:-1]) == sorted(f"p_{name}" for name in names)
    for row, answer in zip(found, expected, strict=True):
        scores = dict(zip(answer["labels"], answer["scores"], strict=True))
        assert row["label"] == answer["labels"][0] and float(row["score"]) == pytest.approx(answer["scores"][0], abs=2e-6)
        assert {name: float(row[f"p_{name}"]) for name in names} == pytest.approx(scores, abs=2e-6)
    assert [row["truncated"] for row in found] == ["false"] * 60 + ["true"]
    assert sum(summary.labels.values()) == len(TEXTS) and summary.truncated == 1


def test_several_labels_of_a_text_are_lists_from_a_threshold_on(artifact: Path, source: Path, tmp_path: Path) -> None:
    with ZeroShot.from_pretrained(artifact) as judge:
        expected = judge(TEXTS, LABELS, multi_label=True)
    scores = [dict(zip(each["labels"], each["scores"], strict=True)) for each in expected]
    cases: list[dict[str, Any]] = [{}, {"threshold": 0.3}, {"threshold": {"music": 0.9, None: 0.1}}, {"top_k": 2}]
    for number, more in enumerate(cases):
        output = tmp_path / f"{number}.jsonl"
        score_file(source, output, model=artifact, candidate_labels=LABELS, multi_label=True, **more)
        limit = more.get("threshold", 0.5)
        for row, each, answer in zip(rows_of(output), scores, expected, strict=True):
            least = {name: limit.get(name, limit[None]) if isinstance(limit, dict) else limit for name in LABELS}
            best = answer["labels"][:2] if "top_k" in more else [name for name in LABELS if each[name] >= least[name]]
            assert row["label"] == best and row["score"] == pytest.approx([each[name] for name in best], abs=2e-6)


def test_a_resumed_run_has_the_same_bytes_and_the_same_labels(artifact: Path, source: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: Any) -> None:
        if done.rows >= 30:
            raise Stop

    run: dict[str, Any] = {"model": artifact, "part_rows": 10, "threads": 1, "candidate_labels": LABELS}
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **run)
    with pytest.raises(Stop):
        score_file(source, output, progress=stop, **run)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"candidate_labels": ["music", "the film", "awful"]}, "labels"),
        ({"candidate_labels": None}, "labels"),
        ({"hypothesis_template": "It was {}."}, "template"),
        ({"multi_label": True}, "multi_label"),
    ]
    for change, said in changes:
        with pytest.raises(OptionError, match=f"the unfinished run in .* had .*{said}"):
            score_file(source, output, resume=True, **{**run, **change})
    summary = score_file(source, output, resume=True, hypothesis_template="This example is {}.", **run)
    assert summary.resumed >= 20 and output.read_bytes() == whole.read_bytes()


def test_rows_that_cannot_be_premises_are_named(artifact: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = ["good", "", None, "very " * 40, "bad"]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run: dict[str, Any] = {"model": artifact, "candidate_labels": LABELS, "force": True}
    with pytest.raises(InputError, match="row 2 cannot be scored: the text is empty: as in transformers"):
        score_file(source, output, **run)
    score_file(source, output, on_error="null", **run)
    assert [row["label"] is None for row in rows_of(output)] == [False, True, True, False, False]
    score_file(source, output, on_error="skip", long_text="error", **run)
    reasons = [json.loads(line)["reason"] for line in Path(f"{output}.errors.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows_of(output)] == ["good", "bad"] and "more than max_length, 32 tokens" in reasons[-1]
    with pytest.raises(InputError, match=r"row 1 cannot be scored: the text and the hypothesis 'This example .* do not fit"):
        run["candidate_labels"] = ["very " * 40]
        score_file(source, output, **run)


def test_a_scorer_gives_the_answers_of_zero_shot(artifact: Path) -> None:
    scorer = Scorer(artifact, candidate_labels="music, the film", hypothesis_template="{}!", probabilities=True)
    with ZeroShot.from_pretrained(artifact) as judge:
        expected = judge(TEXTS, "music, the film", "{}!")
    for each in (scorer, pickle.loads(pickle.dumps(scorer))):
        found = each({"text": TEXTS})
        assert list(found) == ["text", "label", "score", "p_music", "p_the film", "truncated"]
        assert list(found["label"]) == [answer["labels"][0] for answer in expected]
        assert found["score"] == pytest.approx([answer["scores"][0] for answer in expected], abs=1e-6)
        np.testing.assert_allclose(found["p_music"] + found["p_the film"], 1, atol=1e-6)


def test_options_that_do_not_fit_candidate_labels_are_refused(
    make_artifact: Callable[..., Path], artifact: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"candidate_labels": "a", "pair_column": "id"}, "second texts"),
        ({"hypothesis_template": "{}"}, r"belong to candidate_labels \(--labels\)"),
        ({"multi_label": True}, "belong to candidate_labels"),
        ({"candidate_labels": []}, "candidate_labels is empty"),
        ({"candidate_labels": "a", "threshold": 0.3}, "threshold is for multi-label models"),
        ({"candidate_labels": "a", "model": make_artifact(("value",), "regression", name="value")}, "is a regression"),
    ]
    for more, said in cases:
        with pytest.raises(OptionError, match=said):
            score_file(source, output, **{"model": artifact, **more})
    with pytest.warns(UserWarning, match="begins with 'entail'"):
        score_file(source, output, model=make_artifact(("a", "b"), name="unnamed"), candidate_labels="a, b")


def test_classify_shows_the_labels_of_texts(artifact: Path) -> None:
    texts = ["good film", "the plot was dull"]
    call = [*texts, "-m", str(artifact), "--labels", "music, film, awful plot", "--template", "It was {}."]
    with ZeroShot.from_pretrained(artifact) as judge:
        expected = judge(texts, "music, film, awful plot", "It was {}.", multi_label=True)
    lines = CliRunner().invoke(classify, [*call, "--multi-label", "--format", "jsonl"]).stdout.splitlines()
    for line, answer in zip(lines, expected, strict=True):
        assert json.loads(line) == {
            "text": answer["sequence"],
            "label": answer["labels"][0],
            "score": answer["scores"][0],
            "scores": dict(zip(answer["labels"], answer["scores"], strict=True)),
        }
    rows = CliRunner().invoke(classify, [*call, "--multi-label", "--top-k", "2"]).stdout.splitlines()
    for row, answer in zip(rows, expected, strict=True):
        shown = [f"{label:<10}  {score:.4f}" for label, score in zip(answer["labels"], answer["scores"], strict=True)]
        assert row == "  ".join([*shown[:2], answer["sequence"]])
    lines = CliRunner().invoke(classify, ["-m", str(artifact), "--labels", "a, b"], input="good\nbad\n").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["good", "bad"]


def test_the_commands_refuse_what_does_not_fit(artifact: Path, source: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(classify, ["good", "-m", str(artifact), "--labels", "a", "--pair", "b"])
    assert done.exit_code == 2 and "--labels makes them" in done.output
    done = CliRunner().invoke(classify, ["good", "-m", str(artifact), "--template", "{}"])
    assert isinstance(done.exception, OptionError) and "--labels" in str(done.exception)
    output = tmp_path / "out.csv"
    done = CliRunner().invoke(score, [str(source), "-o", str(output), "-m", str(artifact), "--labels", "music,film"])
    assert done.exit_code == 0 and {row["label"] for row in rows_of(output)} <= {"music", "film"}
