"""Files and batches of columns through a token classifier: a column of entities, those of ``TokenClassifier``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from fusedbert.engine import OptionError, Scorer, TokenClassifier, Window, score_file

TEXTS = [
    "the movie was very good",
    'bad "movie", not\r\ngood 👍🏽 !',
    "",
    "good movies " * 40,
    "the movie was very good",
]


@pytest.fixture
def tagger(tokens_artifact: Path) -> Any:
    with TokenClassifier.from_pretrained(tokens_artifact, aggregation_strategy="simple") as loaded:
        yield loaded


def rounded(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entity, "score": pytest.approx(entity["score"], abs=1e-6)} for entity in entities]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{json.dumps({'id': i, 'text': text})}\n" for i, text in enumerate(texts)))
    return path


@pytest.mark.parametrize("strategy", [None, "none", "max"])
def test_every_format_has_the_entities_of_the_tagger(tokens_artifact: Path, tagger: Any, tmp_path: Path, strategy: Any) -> None:
    source = write(tmp_path / "in.jsonl", TEXTS)
    expected = [rounded(entities) for entities in tagger(TEXTS, aggregation_strategy=strategy)]
    assert expected[0] and expected[2] == []
    for kind in ("jsonl", "json", "csv", "parquet"):
        output = tmp_path / f"out.{kind}"
        summary = score_file(source, output, model=tokens_artifact, aggregation_strategy=strategy)
        if kind == "jsonl":
            rows = [json.loads(line) for line in output.read_text().splitlines()]
        elif kind == "json":
            rows = json.loads(output.read_text())
        elif kind == "csv":
            found = csv.DictReader(io.StringIO(output.read_bytes().decode(), newline=""))
            rows = [{**row, "entities": json.loads(row["entities"]), "truncated": row["truncated"] == "true"} for row in found]
        else:
            rows = pyarrow.parquet.read_table(output).to_pylist()
        assert [row["text"] for row in rows] == TEXTS
        assert [row["entities"] for row in rows] == expected
        assert [row["truncated"] for row in rows] == [False, False, False, True, False]
        assert summary.truncated == 1
        assert sum(summary.labels.values()) == sum(map(len, expected))


def test_windows_read_all_of_a_long_text(tokens_artifact: Path, tmp_path: Path) -> None:
    with TokenClassifier.from_pretrained(tokens_artifact, long_text=Window(stride=5)) as tagger:
        expected = [rounded(entities) for entities in tagger(TEXTS, aggregation_strategy="simple")]
    output = tmp_path / "out.jsonl"
    score_file(write(tmp_path / "in.jsonl", TEXTS), output, model=tokens_artifact, long_text=Window(stride=5))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["entities"] for row in rows] == expected and not any(row["truncated"] for row in rows)
    assert rows[3]["entities"][-1]["end"] > 400


def test_a_row_that_cannot_be_scored_has_null(tokens_artifact: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "good movie"}\n{"text": null}\n{"text": "' + "good " * 90 + '"}\n')
    summary = score_file(source, output, model=tokens_artifact, on_error="null", long_text="error")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert summary.errors == 2
    assert rows[0]["entities"] and [row["entities"] for row in rows[1:]] == [None, None]


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tokens_artifact: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [f"{text} {i}" for i in range(40) for text in TEXTS])
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    score_file(source, whole, model=tokens_artifact, part_rows=20)
    seen = []

    def stop(progress: Any) -> None:
        seen.append(progress.rows)
        if progress.rows >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(source, resumed, model=tokens_artifact, part_rows=20, progress=stop)
    with pytest.raises(OptionError, match="aggregation_strategy"):
        score_file(source, resumed, model=tokens_artifact, part_rows=20, resume=True, aggregation_strategy="max")
    summary = score_file(source, resumed, model=tokens_artifact, part_rows=20, resume=True)
    assert summary.resumed >= 80 and resumed.read_bytes() == whole.read_bytes()


def test_a_scorer_adds_entities(tokens_artifact: Path, tagger: Any) -> None:
    found = Scorer(tokens_artifact, aggregation_strategy="first", prefix="m_")({"text": TEXTS})
    assert list(found) == ["text", "m_entities", "m_truncated"]
    assert list(found["m_entities"]) == tagger(TEXTS, aggregation_strategy="first")


@pytest.mark.parametrize(
    "option", [{"probabilities": True}, {"top_k": 2}, {"threshold": 0.5}, {"function_to_apply": "none"}, {"pair_column": "id"}]
)
def test_options_of_classifiers_of_texts_are_refused(tokens_artifact: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(option))} is for a classifier of texts"):
        score_file(write(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.csv", model=tokens_artifact, **option)


def test_what_a_model_does_not_have_is_refused(tokens_artifact: Path, artifact: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", TEXTS)
    with pytest.raises(OptionError, match="is for a token classifier"):
        score_file(source, tmp_path / "out.csv", model=artifact, aggregation_strategy="first")
    with pytest.raises(OptionError, match="by sentence"):
        score_file(source, tmp_path / "out.csv", model=tokens_artifact, long_text=Window(by="sentence"))
    with pytest.raises(OptionError, match="none, simple"):
        score_file(source, tmp_path / "out.csv", model=tokens_artifact, aggregation_strategy="best")
