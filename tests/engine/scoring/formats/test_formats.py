"""Every format in, every format out: the input's columns as they were, in its order, with the classifier's own scores."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusedbert.engine import Classifier, InputError, score_file
from fusedbert.engine.scoring.columns import OutputColumns
from fusedbert.engine.scoring.formats import FileFormat, open_source
from fusedbert.engine.scoring.formats.base import ReadOptions
from fusedbert.engine.scoring.formats.csv import CsvData, CsvWriter
from fusedbert.engine.scoring.formats.input import InputFile
from fusedbert.engine.scoring.formats.jsonl import JsonlWriter
from fusedbert.engine.scoring.options import Columns

FORMATS = ["csv", "tsv", "jsonl", "parquet"]


def as_text(value: bool) -> str:
    """Return a flag as a csv has it."""
    return "true" if value else "false"


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_unusual_contents_survive_every_format(
    source: str, output: str, nasty: Any, write: Any, read: Any, artifact: Path, classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / f"out.{output}"
    summary = score_file(write(f"in.{source}", nasty), path, model=artifact, part_rows=7, probabilities=True)
    expected = classifier.predict_proba([row["text"] for row in nasty])
    labels: list[Any] = classifier.predict([row["text"] for row in nasty])
    found = read(path)
    assert summary.rows == summary.written == len(found) == len(nasty)
    assert summary.truncated == 1 and summary.errors == 0
    assert dict(summary.labels) == {label: labels.count(label) for label in set(labels)}
    for row, was, label, p in zip(found, nasty, labels, expected, strict=True):
        assert list(row) == ["id", "text", "other", "label", "score", "p_NEGATIVE", "p_POSITIVE", "truncated"]
        assert {name: row[name] for name in was} == was
        assert row["label"] == label
        assert float(row["score"]) == pytest.approx(p.max(), abs=1e-5)
        assert [float(row["p_NEGATIVE"]), float(row["p_POSITIVE"])] == pytest.approx(list(p), abs=1e-5)
        cut = len(was["text"]) > 100_000
        assert row["truncated"] == (as_text(cut) if output in ("csv", "tsv") else cut)
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob("*.errors.jsonl"))


@pytest.mark.parametrize("name", ["x.csv.gz", "x.tsv.zst", "x.jsonl.gz", "x.jsonl.zst"])
def test_compressed_files_are_read_and_written(
    name: str, nasty: Any, write: Any, read: Any, artifact: Path, tmp_path: Path
) -> None:
    source = write(name, nasty)
    path = tmp_path / f"out.{name}"
    score_file(source, path, model=artifact, part_rows=5)
    assert [{key: row[key] for key in nasty[0]} for row in read(path)] == nasty


def test_text_formats_have_six_decimals_and_csv_strings_stay(write: Any, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,zip,text\n007,01.50,fine\n1e5, 8 ,awful\n", encoding="utf-8")
    score_file(source, tmp_path / "out.csv", model=artifact)
    header, *lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert header == "id,zip,text,label,score,truncated"
    assert lines[0].startswith("007,01.50,fine,POSITIVE,0.") and lines[1].startswith("1e5, 8 ,awful,NEGATIVE,0.")
    assert all(len(line.split(",")[4]) == 8 for line in lines)
    score_file(source, tmp_path / "out.jsonl", model=artifact)
    assert '"score": 0.' in (first := (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert len(first.split('"score": ')[1].split(",")[0]) == 8


def test_a_jsonl_line_keeps_its_text(artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        '{"n": 1.50, "big": 123456789012345678901234567890, "text":"caf\\u00e9"}',
        '{ "text" : "x", "own": [1, {"a": null}] } ',
    ]
    source.write_text("\n".join(lines), encoding="utf-8")
    score_file(source, tmp_path / "out.jsonl", model=artifact)
    found = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert found[0].startswith('{"n": 1.50, "big": 123456789012345678901234567890, "text":"caf\\u00e9", "label": ')
    assert found[1].startswith('{"text" : "x", "own": [1, {"a": null}], "label": ')
    assert all(json.loads(line)["label"] in ("NEGATIVE", "POSITIVE") for line in found)


TYPED = pyarrow.table(
    {
        "n": pyarrow.array([1, None, 3], pyarrow.int16()),
        "x": pyarrow.array([0.1, None, float("nan")], pyarrow.float32()),
        "when": pyarrow.array(
            [datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC), None, None], pyarrow.timestamp("us", "UTC")
        ),
        "money": pyarrow.array([decimal.Decimal("1.50"), None, None], pyarrow.decimal128(9, 2)),
        "raw": pyarrow.array([b"\xff\x00", None, b""], pyarrow.binary()),
        "tags": pyarrow.array([["a", None], None, []], pyarrow.list_(pyarrow.string())),
        "kind": pyarrow.array(["x", None, "x"]).dictionary_encode(),
        "text": pyarrow.array(["fine", "awful", "fine"], pyarrow.large_string()),
    }
).replace_schema_metadata({"made by": "a test"})


def test_parquet_columns_keep_types_and_metadata(artifact: Path, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(TYPED, tmp_path / "in.parquet", row_group_size=2)
    score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", model=artifact, part_rows=1)
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.metadata[b"made by"] == b"a test"
    kept = found.select(TYPED.column_names)
    assert kept.schema.equals(TYPED.schema)
    assert kept.drop(["x"]).equals(TYPED.drop(["x"]))  # NaN is not equal to itself
    np.testing.assert_array_equal(kept["x"].to_numpy(), TYPED["x"].to_numpy())
    assert [str(found.schema.field(name).type) for name in ("label", "score", "truncated")] == ["string", "float", "bool"]
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 1  # small parts share one


def test_a_parquet_can_be_scored_into_text_formats(artifact: Path, read: Any, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(TYPED, tmp_path / "in.parquet")
    score_file(tmp_path / "in.parquet", tmp_path / "out.csv", model=artifact)
    first, second, _ = read(tmp_path / "out.csv")
    assert [first[name] for name in TYPED.column_names] == [
        "1", "0.1", "2024-05-01T12:00:00+00:00", "1.50", "/wA=", '["a", null]', "x", "fine",
    ]  # fmt: skip
    assert all(second[name] == "" for name in TYPED.column_names[:-1])
    score_file(tmp_path / "in.parquet", tmp_path / "out.jsonl", model=artifact)
    first, second, third = read(tmp_path / "out.jsonl")
    assert (first["n"], first["x"], first["tags"], second["n"], third["x"]) == (1, 0.1, ["a", None], None, None)


def test_a_jsonl_can_be_scored_into_tables(artifact: Path, read: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "fine", "n": 1}\n{"n": null, "text": "bad", "more": {"a": true}}\n', encoding="utf-8")
    score_file(source, tmp_path / "out.csv", model=artifact)
    assert [(row["text"], row["n"], row["more"]) for row in read(tmp_path / "out.csv")] == [
        ("fine", "1", ""),
        ("bad", "", '{"a": true}'),
    ]
    score_file(source, tmp_path / "out.parquet", model=artifact)
    assert [(row["n"], row["more"]) for row in read(tmp_path / "out.parquet")] == [(1, None), (None, {"a": True})]


@pytest.mark.parametrize(("line", "said"), [('{"text": "x", "n": "one"}', "'n' was int64"), ('{"text": "x", "k": 1}', "'k'")])
def test_the_first_rows_fix_the_columns_of_a_table(line: str, said: str, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "x", "n": 1}\n' * 2 + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        score_file(source, tmp_path / "out.parquet", model=artifact, part_rows=2)
    assert "write .jsonl" in str(caught.value) and "row 3" in str(caught.value)


def test_pairs_are_read_from_two_columns(write: Any, read: Any, artifact: Path, classifier: Classifier, tmp_path: Path) -> None:
    rows = [{"a": "Is it good?", "b": "It is."}, {"a": "Is it good?", "b": "It is not."}, {"a": "x", "b": ""}]
    score_file(write("in.csv", rows), tmp_path / "out.jsonl", model=artifact, text_column="a", pair_column="b")
    expected = classifier([(row["a"], row["b"]) for row in rows])
    for row, want in zip(read(tmp_path / "out.jsonl"), expected, strict=True):
        assert row["label"] == want["label"] and row["score"] == pytest.approx(want["score"], abs=1e-5)


@pytest.mark.parametrize("output", FORMATS)
def test_multi_label_gives_lists(output: str, variant: Any, write: Any, read: Any, tmp_path: Path) -> None:
    model = variant("multi_label_classification")
    texts = ["I really loved this movie.", "The spaghetti was bland.", "x"]
    path = tmp_path / f"out.{output}"
    score_file(write("in.csv", [{"text": text} for text in texts]), path, model=model)
    with Classifier.from_pretrained(model) as clf:
        labels, p = clf.predict(texts), clf.predict_proba(texts)
    for row, want, each in zip(read(path), labels, p, strict=True):
        label, score = row["label"], row["score"]
        if output in ("csv", "tsv"):
            label, score = json.loads(label), json.loads(score)
        assert label == want
        assert score == pytest.approx([value for value in each if value >= 0.5], abs=1e-5)


def test_regression_gives_values(variant: Any, write: Any, read: Any, tmp_path: Path) -> None:
    model = variant("regression")
    source = write("in.csv", [{"text": "fine"}])
    summary = score_file(source, tmp_path / "out.jsonl", model=model)
    with Classifier.from_pretrained(model) as clf:
        expected = clf.decision_function(["fine"])[0]
    (row,) = read(tmp_path / "out.jsonl")
    assert list(row) == ["text", "score", "truncated"] and row["score"] == pytest.approx(list(expected), abs=1e-5)
    assert summary.labels == {}
    with pytest.raises(ValueError, match="regression"):
        score_file(source, tmp_path / "p.jsonl", model=model, probabilities=True)


def test_a_regression_with_one_output_adds_a_single_score() -> None:
    added = OutputColumns.of(("LABEL_0",), "regression", Columns())
    assert added.names == ("score", "truncated")
    assert added.values(np.array([[2.5], [-1]], dtype=np.float32), [False, True]) == [[2.5, -1.0], [False, True]]


CELLS = st.lists(st.tuples(st.text(), st.text()), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=CELLS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_written_rows_are_read_back(kind: str, rows: list[tuple[str, str]], tmp_path: Path) -> None:
    added = OutputColumns.of(("a", "b"), "single_label_classification", Columns()).added
    columns = ("x", "text")
    delimiter = "\t" if kind == "tsv" else ","
    writer = JsonlWriter(added=added) if kind == "jsonl" else CsvWriter(added=added, columns=columns, delimiter=delimiter)
    values = [["a"] * len(rows), [0.5] * len(rows), [False] * len(rows)]
    path = tmp_path / f"x.{kind}"
    part = tmp_path / "part"
    part.write_bytes(writer.chunk(CsvData(columns, [list(row) for row in rows]), values))
    with path.open("wb") as file:
        writer.join([part], file)
    source = open_source(InputFile(str(path)), FileFormat.of(path.name), 100, ReadOptions())
    chunks = list(source.chunks("text", None)) if rows else []
    source.close()
    assert [text for chunk in chunks for text in chunk.texts] == [text for _, text in rows]
    assert [error for chunk in chunks for error in chunk.errors] == []
    if kind != "jsonl":
        assert [cells[:2] for chunk in chunks for cells in chunk.data.cells()] == [list(row) for row in rows]
