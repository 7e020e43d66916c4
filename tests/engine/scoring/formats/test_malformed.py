"""Malformed input: each case has a decision, and each decision a test."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from fusedbert.engine import FusedBertError, InputError, OptionError, score_file
from fusedbert.engine.artifact import read_manifest, write_manifest


@pytest.fixture
def score(artifact: Path, tmp_path: Path, read: Any) -> Any:
    """Return a function that scores bytes and returns the output's rows."""

    def call(content: bytes, name: str = "in.csv", output: str = "out.jsonl", **options: Any) -> list[dict[str, Any]]:
        source = tmp_path / name
        source.write_bytes(content)
        score_file(source, tmp_path / output, model=artifact, **options)
        return read(tmp_path / output)

    return call


def side(tmp_path: Path, output: str = "out.jsonl") -> list[dict[str, Any]]:
    path = tmp_path / f"{output}.errors.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_csv_keeps_line_ends_and_byte_order_mark(score: Any, end: bytes) -> None:
    rows = score(b"\xef\xbb\xbftext,n" + end + b"good,1" + end + b'"two' + end + b'lines",2')
    assert [(row["text"], row["n"]) for row in rows] == [("good", "1"), (f"two{end.decode()}lines", "2")]


def test_a_jsonl_keeps_line_ends_blank_lines_and_byte_order_mark(score: Any) -> None:
    content = b'\xef\xbb\xbf{"text": "good"}\r\n\r\n \n{"text": "bad"}\r\n'
    assert [row["text"] for row in score(content, "in.jsonl")] == ["good", "bad"]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet", "out.csv.gz"])
def test_a_file_with_only_a_header_gives_no_rows(score: Any, output: str, tmp_path: Path) -> None:
    assert score(b"id,text\n", output=output) == []
    if output == "out.csv":
        assert (tmp_path / output).read_bytes() == b"id,text,label,score,truncated\n"


def test_an_empty_jsonl_gives_no_rows(score: Any, tmp_path: Path) -> None:
    assert score(b"", "in.jsonl") == []
    assert score(b"", "in.jsonl", "out.csv") == []
    assert (tmp_path / "out.csv").read_bytes() == b"label,score,truncated\n"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n", b"\ntext\ngood\n"])
def test_a_csv_without_header_is_refused(score: Any, content: bytes) -> None:
    with pytest.raises(InputError, match="no header"):
        score(content)


def test_blank_lines_are_rows_only_in_a_csv_with_one_column(score: Any) -> None:
    assert [row["text"] for row in score(b"text\ngood\n\nbad\n")] == ["good", "", "bad"]
    assert [row["text"] for row in score(b"text,n\ngood,1\n\nbad,2\n\n", output="two.jsonl")] == ["good", "bad"]


def test_columns_that_share_a_name_are_refused(score: Any) -> None:
    with pytest.raises(InputError, match=r"more than one column named 'n'.*'text', 'n', 'n'"):
        score(b"text,n,n\ngood,1,2\n")


BROKEN = b"id,text\n1,good\n2,caf\xe9\n3\n4,bad,extra\n5,fine\n"


def test_a_row_that_cannot_be_scored_stops_the_run_and_is_named(score: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2 cannot be scored: not UTF-8.*--on-error null"):
        score(BROKEN)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("part_rows", [1, 2, 100])
def test_null_keeps_a_bad_row_without_a_score(score: Any, tmp_path: Path, part_rows: int) -> None:
    rows = score(BROKEN, on_error="null", part_rows=part_rows)
    assert [(row["id"], row["text"]) for row in rows] == [
        ("1", "good"),
        ("2", "caf\N{REPLACEMENT CHARACTER}"),
        ("3", ""),
        ("4", "bad"),
        ("5", "fine"),
    ]
    assert [row["label"] is None for row in rows] == [False, True, True, True, False]
    assert all((row["score"] is None, row["truncated"] is None) == (row["label"] is None,) * 2 for row in rows)
    assert side(tmp_path) == [
        {"row": 2, "reason": "not UTF-8", "input": ["2", "caf\\xe9"]},
        {"row": 3, "reason": "1 cells, where the header has 2", "input": ["3"]},
        {"row": 4, "reason": "3 cells, where the header has 2", "input": ["4", "bad", "extra"]},
    ]


@pytest.mark.parametrize("long_text", ["truncate", "error", "window"])
def test_a_token_without_a_vector_is_an_error_of_its_row(artifact: Path, tmp_path: Path, read: Any, long_text: str) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<beyond>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_manifest(folder, read_manifest(folder))
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\r\ngood\r\nit is <beyond> me\r\nbad\r\n")
    with pytest.raises(InputError, match=r"row 2 cannot be scored: the text holds the token '<beyond>' of id"):
        score_file(source, tmp_path / "out.csv", model=folder, long_text=long_text)
    score_file(source, tmp_path / "out.csv", model=folder, long_text=long_text, on_error="null", force=True)
    assert [bool(row["label"]) for row in read(tmp_path / "out.csv")] == [True, False, True]
    assert [entry["row"] for entry in side(tmp_path, "out.csv")] == [2]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_skip_leaves_a_bad_row_out(score: Any, tmp_path: Path, output: str) -> None:
    rows = score(BROKEN, on_error="skip", output=output)
    assert [row["id"] for row in rows] == ["1", "5"]
    assert [entry["row"] for entry in side(tmp_path, output)] == [2, 3, 4]


def test_a_csv_keeps_bytes_that_are_not_utf8(score: Any, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"id,text\n2,caf\xe9\n")
    score_file(source, tmp_path / "out.csv", model=artifact, on_error="null")
    assert (tmp_path / "out.csv").read_bytes() == b"id,text,label,score,truncated\n2,caf\xe9,,,\n"


LINES = [
    (b'{"text": null}', "'text' is null"),
    (b'{"n": 1}', "'text' is missing"),
    (b'{"text": 5}', "'text' is of type int, expected a string"),
    (b'{"text": "\\ud83d"}', "'text' has a lone surrogate, which is not Unicode text"),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    (b'["text"]', "no JSON object"),
    (b'{"text": "cut', "no JSON object"),
    (b"[" * 100_000, "no JSON object"),
]


@pytest.mark.parametrize(("line", "reason"), LINES, ids=range(len(LINES)))
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_jsonl_line_that_cannot_be_scored_is_named(score: Any, tmp_path: Path, line: bytes, reason: str, output: str) -> None:
    rows = score(b'{"text": "good"}\n' + line + b'\n{"text": "bad"}\n', "in.jsonl", output, on_error="null")
    assert [row["label"] or None for row in rows] == ["POSITIVE", None, "NEGATIVE"]
    assert [(entry["row"], entry["reason"]) for entry in side(tmp_path, output)] == [(2, reason)]


def test_nulls_in_parquet_are_rows_that_cannot_be_scored(write: Any, artifact: Path, read: Any, tmp_path: Path) -> None:
    source = write("in.parquet", [{"text": "good"}, {"text": None}, {"text": ""}])
    score_file(source, tmp_path / "out.parquet", model=artifact, on_error="null")
    assert [(row["text"], row["label"] is None) for row in read(tmp_path / "out.parquet")] == [
        ("good", False),
        (None, True),
        ("", False),
    ]
    with pytest.raises(InputError, match="row 2"):
        score_file(source, tmp_path / "fail.parquet", model=artifact)


def test_an_old_errors_file_is_removed_when_nothing_fails(score: Any, tmp_path: Path) -> None:
    score(BROKEN, on_error="skip")
    score(b"text\ngood\n", force=True)
    assert side(tmp_path) == []


@pytest.mark.parametrize("content", [b'text\n"good" movie\n', b'text,n\n"good,1\nbad,2\n', b'text\tn\n"Fat Girls" is bad\t1\n'])
def test_misplaced_quotes_are_refused(score: Any, content: bytes) -> None:
    with pytest.raises(InputError, match=r"line \d+.*--no-quotes"):
        score(content, "in.tsv" if b"\t" in content else "in.csv")


def test_a_tsv_without_quoting_is_read_and_written_as_it_is(artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_bytes(b'text\tn\n"Fat Girls" is bad\t1\n"open\t2\n')
    score_file(source, tmp_path / "out.tsv", model=artifact, quotes=False)
    lines = (tmp_path / "out.tsv").read_bytes().split(b"\n")
    assert lines[1].startswith(b'"Fat Girls" is bad\t1\tNEGATIVE\t') and lines[2].startswith(b'"open\t2\t')


def test_a_tsv_without_quoting_cannot_hold_a_tab(score: Any) -> None:
    with pytest.raises(InputError, match="a tab or a newline"):
        score(b"text,n\na\tb,1\n", output="out.tsv", quotes=False)


@pytest.mark.parametrize("name", ["in.csv.gz", "in.csv.zst", "in.parquet"])
def test_a_truncated_file_is_an_error(name: str, write: Any, artifact: Path, tmp_path: Path) -> None:
    source = write(name, [{"text": f"good {number}"} for number in range(2000)])
    source.write_bytes(source.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"damaged|cannot be read as parquet"):
        score_file(source, tmp_path / "out.csv", model=artifact)


def test_a_file_that_is_not_gzip_is_an_error(score: Any) -> None:
    with pytest.raises(InputError, match="damaged"):
        score(b"text\ngood\n", "in.csv.gz")


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        (b"a,b", {}, "none has a usual name.*--text-column.*'a', 'b'"),
        (b"text,review", {}, "'text', 'review' could each be.*--text-column"),
        (b"text,b", {"text_column": "c"}, "no column 'c'.*'text', 'b'"),
        (b"text,b", {"pair_column": "c"}, "no column 'c'"),
        (b"text,label", {}, "'label' already: give --prefix"),
        (b"text,p_POSITIVE", {"probabilities": True}, "'p_POSITIVE' already"),
        (b"text,m_label", {"prefix": "m_"}, "'m_label' already"),
    ],
)
def test_ambiguous_columns_are_refused_with_a_list(score: Any, header: bytes, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        score(header + b"\ngood,x\n", **options)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (b"Text,b", {}),
        (b"b,REVIEW", {"text_column": "b"}),
        (b"sentence,text", {"pair_column": "text"}),
        (b"text,label", {"prefix": "m_"}),
        (b"text,p_POSITIVE", {}),
    ],
)
def test_the_usual_columns_are_found(score: Any, header: bytes, options: Any) -> None:
    (row,) = score(header + b"\ngood,good\n", **options)
    assert row[f"{options.get('prefix', '')}label"] == "POSITIVE"


def test_a_single_column_that_is_named_may_have_any_name(score: Any) -> None:
    assert score(b"whatever\ngood\n", text_column="whatever")[0]["label"] == "POSITIVE"


def test_an_added_key_that_a_later_line_has_already_is_refused(score: Any) -> None:
    with pytest.raises(InputError, match="row 2 has a key 'label' already"):
        score(b'{"text": "good"}\n{"text": "bad", "label": 1}\n', "in.jsonl", part_rows=1)


def test_a_text_column_must_hold_strings(artifact: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="'text' is of type int64, expected strings"):
        score_file(tmp_path / "in.parquet", tmp_path / "out.csv", model=artifact)


@pytest.mark.parametrize(
    ("source", "output", "options", "said"),
    [
        ("in.xlsx", "out.csv", {}, "format of in.xlsx is not known"),
        ("in.csv", "out", {}, "format of .*out is not known"),
        ("in.parquet.gz", "out.csv", {}, "parquet compresses"),
        ("-", "out.csv", {}, "format of stdin is not known"),
        ("-", "out.csv", {"input_format": "parquet"}, "cannot come from stdin"),
        ("in.csv", "out.csv", {"on_error": "stop"}, "fail, null, skip"),
        ("in.csv", "out.csv", {"resume": True, "force": True}, "exclude each other"),
        ("in.csv", "out.csv", {"part_rows": 0}, "part_rows is 0"),
        ("in.csv", "out.csv", {"on": "spark"}, "local, ray"),
        ("in.csv", "out.csv", {"actors": 2}, "on='ray'"),
    ],
)
def test_wrong_calls_of_score_file_are_refused(
    source: str, output: str, options: Any, said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_bytes(b"text\ngood\n")
    with pytest.raises(OptionError, match=said):
        score_file(source, output, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_unreadable_and_unwritable_files_are_one_error(artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\ngood\n")
    (tmp_path / "folder.csv").mkdir()
    for name, output, said in [
        (tmp_path / "none.csv", tmp_path / "out.csv", "cannot be read: No such file"),
        (tmp_path / "folder.csv", tmp_path / "out.csv", "is a folder without files to score"),
        (source, tmp_path / "folder.csv", "is a folder: give a file"),
        (source, source, "exists already"),
    ]:
        with pytest.raises(FusedBertError, match=said):
            score_file(name, output, model=artifact)
    with pytest.raises(OptionError, match="is the input"):
        score_file(source, source, model=artifact, force=True)
    score_file(source, tmp_path / "new" / "folders" / "out.csv", model=artifact)
    assert (tmp_path / "new" / "folders" / "out.csv").is_file()


def test_an_empty_gzip_gives_no_rows(score: Any) -> None:
    assert score(gzip.compress(b"text\n"), "in.csv.gz") == []
