"""The first line of a csv: a header, a row, or a line with another delimiter, which is never scored as something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import InputError, OptionError, score_file
from fusedbert.engine.scoring.formats.header import header_hint

SEMICOLONS = b"text;id\ngood movie;1\nbad, film;2\n"


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (SEMICOLONS, "in.csv", "'text;id'.*--delimiter ';'"),
        (b'"text";"id"\n"good";1\n', "in.csv", "line 1.*--delimiter ';'"),
        (b"text\tid\ngood\t1\n", "in.csv", "--delimiter tab"),
        (b"id|review\n1|good\n", "in.csv", r"--delimiter '\|'"),
        (b"id,text\n1,good\n", "in.tsv", "--delimiter ','"),
        (b"sep=;\r\ntext;id\r\ngood;1\r\n", "in.csv", "'sep=;'.*--delimiter ';'"),
        (b'\xef\xbb\xbf"sep=;"\ntext;id\ngood;1\n', "in.csv", "'sep=;'.*--delimiter ';'"),
        (b"SEP=\t\ntext\tid\ngood\t1\n", "in.csv", "--delimiter tab"),
        (b"good movie\nbad film\n", "in.csv", "'good movie'.*--text-column 'good movie'.*--no-header"),
        (b"It is a fine film.\nbad film\n", "in.csv", "if it is a text, --no-header.*--text-column"),
        (b"great film; really\nbad film\n", "in.csv", "--delimiter.*--no-header"),
        (b"x" * 5000 + b"\ngood\n", "in.csv", "xxx\\.\\.\\.'.*--no-header"),
        (b"te\0xt,id\n" + b"good,1\n" * 99, "in.csv", "--encoding utf-16"),
    ],
)
def test_an_unusual_first_line_stops_the_run(convert: Any, content: bytes, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        convert(content, name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("content", "name", "options"),
    [
        (SEMICOLONS, "in.csv", {"delimiter": ";"}),
        (b"sep=;\r\n" + SEMICOLONS, "in.csv", {"delimiter": ";"}),
        (b'"sep=;"\n' + SEMICOLONS, "in.tsv", {"delimiter": ";"}),
        (b'sep=,\ntext,id\ngood movie,1\n"bad, film",2\n', "in.csv", {}),
        (SEMICOLONS.replace(b";", b"\t"), "in.csv", {"delimiter": "tab"}),
        (SEMICOLONS.replace(b";", b"\t"), "in.csv", {"delimiter": "\\t"}),
        (SEMICOLONS.replace(b";", b"|"), "in.csv", {"delimiter": "|"}),
        ("text§id\ngood movie§1\nbad, film§2\n", "in.csv", {"delimiter": "§"}),
    ],
)
def test_the_delimiter_that_is_given_divides_the_cells(convert: Any, content: Any, name: str, options: Any) -> None:
    found = convert(content, name, "out.csv", **options)
    assert (found.columns, found.texts, found.reasons) == (("text", "id"), ["good movie", "bad, film"], {})
    assert found.path.read_bytes() == b'text,id,label\ngood movie,1,L\n"bad, film",2,L\n'


@pytest.mark.parametrize("name", ["Text", " REVIEW ", "message"])
def test_a_usual_name_is_a_header_with_every_other_delimiter_in_the_rows(convert: Any, name: str) -> None:
    assert convert(f"{name}\ngood; film\tor|so\n", text=name).texts == ["good; film\tor|so"]


def test_a_named_column_may_have_any_name(convert: Any) -> None:
    assert convert(b"what;ever\ngood;1\n", text="what;ever", named=True).texts == ["good;1"]


@pytest.mark.parametrize(
    ("content", "columns", "texts"),
    [
        (b"good movie\nbad film\n", ("1",), ["good movie", "bad film"]),
        (b"\ngood movie\n\nbad film", ("1",), ["", "good movie", "", "bad film"]),
        (b"\n\n1,good\n\n2,bad\n", ("1", "2"), ["1", "2"]),
        (b'"two\nlines","x"\n', ("1", "2"), ["two\nlines"]),
        (b"text,text\n", ("1", "2"), ["text"]),
    ],
)
def test_without_a_header_every_line_is_a_row(convert: Any, content: bytes, columns: Any, texts: Any) -> None:
    found = convert(content, text="1", header=False)
    assert (found.columns, found.texts, found.reasons) == (columns, texts, {})


def test_without_a_header_the_first_row_counts_the_cells(convert: Any) -> None:
    assert convert(b"1,good\n2\n", text="2", header=False).reasons == {2: "1 cells, where the first row has 2"}


def test_an_empty_file_without_a_header_has_no_rows(convert: Any) -> None:
    assert convert(b"", "in.csv", "out.csv", header=False).path.read_bytes() == b"label\n"


def test_columns_are_named_by_number(artifact: Path, tmp_path: Path, read: Any) -> None:
    (tmp_path / "in.csv").write_bytes(b"1,good\n2,bad\n")
    score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=artifact, header=False, text_column="2")
    assert [(row["1"], row["2"], row["label"]) for row in read(tmp_path / "out.csv")] == [
        ("1", "good", "POSITIVE"),
        ("2", "bad", "NEGATIVE"),
    ]


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        (b"id;text,more", {}, "none has a usual name.*--delimiter ';'"),
        (b"17,I liked it a lot!", {}, "none has a usual name.*--no-header"),
        (b"5,5,good", {}, "more than one column named '5'.*--no-header"),
        (b"17,good", {"text_column": "2"}, "no column '2'.*--no-header"),
        (b"id,stars", {}, "'id', 'stars'$"),
    ],
)
def test_where_no_column_is_found_the_message_says_what_may_be_wrong(
    header: bytes, options: Any, said: str, artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(header + b"\n1,x\n")
    with pytest.raises(InputError, match=said):
        score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=artifact, **options)
    assert not (tmp_path / "out.csv").exists()


def test_ordinary_headers_give_no_hint() -> None:
    for columns in (["id", "stars"], ["", "Date of review"], ["a", "b (text, long)"], ["x-1", "v2"]):
        assert header_hint(columns, ",") == ""


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "\r", "\0", "\ud800", 5])
def test_a_delimiter_is_one_character(convert: Any, delimiter: Any) -> None:
    with pytest.raises(OptionError, match=r"delimiter is .*: give one character"):
        convert(b"text\ngood\n", delimiter=delimiter)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.jsonl", {"delimiter": ";"}),
        ("in.txt", {"delimiter": ";"}),
        ("in.jsonl", {"header": False}),
        ("in.json", {"header": False}),
    ],
)
def test_an_option_that_the_format_does_not_have_is_refused(convert: Any, name: str, options: Any) -> None:
    with pytest.raises(OptionError, match=r"leave .*out"):
        convert(b"", name, **options)


def test_a_cell_that_a_tsv_without_quotes_cannot_hold_is_an_error_of_its_row(convert: Any) -> None:
    with pytest.raises(InputError, match="a tab or a newline"):  # in a column's name, before the work
        convert('{"text": "a", "a\\tb": 1}', "in.jsonl", "out.tsv", quotes=False)
    for name, content in {
        "in.csv": b"text,n\nin a\ttab,1\nwhole,2\n",
        "in.jsonl": json.dumps({"text": "in a\ttab", "n": 1}).encode() + b'\n{"text": "whole", "n": 2}\n',
    }.items():
        found = convert(content, name, "out.tsv", quotes=False)
        assert list(found.reasons) == [1] and "a tab or a newline" in found.reasons[1]
        assert found.path.read_bytes() == b"text\tn\tlabel\nin a tab\t1\tL\nwhole\t2\tL\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("id\ttext", "--input-format tsv"),
        ('"ID"\t"Review"', "--input-format tsv"),
        ("good movie\t1", "--input-format tsv"),
        ("text,stars", "--input-format csv,"),
        ("id; comment", "--input-format csv --delimiter ';'"),
        ("sep=;", "--input-format csv --delimiter ';'"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_under_the_name_of_a_txt_stops_the_run(convert: Any, line: str, said: str, encoding: str) -> None:
    content = f"{line}\ngood\n".encode(encoding)
    with pytest.raises(InputError, match=f"like a table: give {said}.*--no-header if each line is a text"):
        convert(content, "in.txt")
    assert convert(content, "in.txt", header=False).texts == [line, "good"]


@pytest.mark.parametrize("line", ["I like it, really; no comment", "one\ttwo", "5", "text", "a, b, c; 1, 2"])
def test_a_first_line_of_a_txt_that_is_a_text_is_a_row(convert: Any, line: str) -> None:
    assert convert(f"{line}\n", "in.txt").texts == [line]
