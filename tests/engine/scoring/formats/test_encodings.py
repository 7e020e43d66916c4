"""Encodings, given or by a byte order mark, and bytes that do not fit; compared with Python's own decoding."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import InputError, OptionError, score_file
from fusedbert.engine.scoring.formats import FileFormat, open_source
from fusedbert.engine.scoring.formats.base import ReadOptions
from fusedbert.engine.scoring.formats.input import InputFile

ROWS = ["café was good", "Größe", "plain"]
RUSSIAN = ["цена хорошая", "плохо", "plain"]


def lines(name: str, texts: list[str]) -> str:
    if name == "in.txt":
        return "".join(f"{text}\n" for text in texts)
    if name == "in.jsonl":
        return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    if name == "in.json":
        return json.dumps([{"text": text} for text in texts], ensure_ascii=False)
    return "text\n" + "".join(f"{text}\n" for text in texts)


NAMES = ["in.csv", "in.tsv", "in.txt", "in.jsonl", "in.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("latin-1", ROWS),
        ("cp1252", ROWS),
        ("utf8", ROWS),
        ("utf-8-sig", RUSSIAN),
        ("utf-16", RUSSIAN),
        ("utf-16-le", RUSSIAN),
        ("utf-16-be", RUSSIAN),
        ("utf-32", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("gb18030", RUSSIAN),
        ("shift_jis", ["日本語", "plain"]),
        ("iso2022_jp", ["日本語", "plain"]),
    ],
)
def test_an_encoding_that_is_given_decodes_the_text(convert: Any, name: str, encoding: str, texts: list[str]) -> None:
    found = convert(lines(name, texts).encode(encoding), name, "out.jsonl", encoding=encoding)
    assert (found.texts, found.reasons) == (texts, {})
    assert [json.loads(line)["text"] for line in found.path.read_bytes().decode().splitlines()] == texts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mark", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_names_the_encoding(convert: Any, name: str, mark: str) -> None:
    content = f"\ufeff{lines(name, RUSSIAN)}".encode(mark)
    assert convert(content, name).texts == RUSSIAN
    assert convert(content, name, encoding=mark).texts == RUSSIAN


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("texts", [ROWS, RUSSIAN])
def test_wide_characters_without_a_mark_stop_the_run(convert: Any, name: str, encoding: str, texts: Any) -> None:
    content = lines(name, texts).encode(encoding)
    with pytest.raises(InputError, match=f"--encoding {encoding}"):
        convert(content, name)
    assert convert(content, name, encoding=encoding).texts == texts
    assert convert(content, name, encoding=encoding[:6]).texts == texts


def test_a_few_zero_bytes_are_text(convert: Any) -> None:
    assert convert(b"text\na\0b and a longer line of text\n").texts == ["a\0b and a longer line of text"]


@pytest.mark.parametrize("encoding", ["base64", "rot13", "hex", "zip", "bogus", "idna", "undefined", "", "a\0b", "\ud800", 5])
def test_an_encoding_that_is_none_of_text_is_refused(convert: Any, encoding: Any) -> None:
    with pytest.raises(OptionError, match=r"encoding is .*latin-1 or cp1252"):
        convert(b"text\ngood\n", encoding=encoding)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_the_mark_of_another_encoding_is_an_error(convert: Any, encoding: str) -> None:
    with pytest.raises(InputError, match=f"mark of UTF-8, and --encoding is {encoding}: leave it out"):
        convert(b"\xef\xbb\xbftext\ngood\n", encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "content", "reason", "shown"),
    [
        (None, b"text\ncaf\xe9\nok\n", "not UTF-8", b"caf\xe9"),  # as it was read
        ("cp1252", b"text\na\x81b\nok\n", "not cp1252", "a\ufffdb".encode()),
        ("shift_jis", b"text\na\x81\nok\n", "not shift_jis", "a\ufffd".encode()),
        ("ascii", b"text\ncaf\xe9\nok\n", "not ascii", "caf\ufffd".encode()),
        ("utf-16-le", "text\na".encode("utf-16-le") + b"\x0a\xd8" + "\nok\n".encode("utf-16-le"), "not utf-16-le", None),
    ],
)
def test_bytes_that_do_not_fit_are_an_error_of_their_row(
    convert: Any, encoding: str | None, content: bytes, reason: str, shown: bytes | None
) -> None:
    found = convert(content, "in.csv", "out.csv", encoding=encoding)
    assert (found.reasons, found.texts[1]) == ({1: reason}, "ok")
    assert found.path.read_bytes() == b"text,label\n" + (shown or "a\ufffd\ufffd".encode()) + b",L\nok,L\n"
    json.dumps(found.contents[1])
    found = convert(content, "in.csv", "out.jsonl", encoding=encoding)
    assert "\ufffd" in found.path.read_bytes().decode()


def test_a_row_of_another_encoding_names_the_option(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"text,id\ncaf\xe9 was good,1\nbad,2\n")
    with pytest.raises(InputError, match=r"row 1 cannot be scored: not UTF-8; .*--encoding, such as latin-1"):
        score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=artifact)
    score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=artifact, encoding="latin-1", force=True)
    assert (tmp_path / "out.csv").read_bytes().startswith("text,id,label,score,truncated\ncafé was good,1,".encode())


def test_a_header_of_another_encoding_names_the_option(convert: Any) -> None:
    with pytest.raises(InputError, match="header that is not UTF-8: give --encoding"):
        convert(b"text,caf\xe9\ngood,1\n")


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl", "in.json"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_under_another_name_is_an_error(convert: Any, name: str, pack: Any) -> None:
    with pytest.raises(InputError, match="expected text: name it"):
        convert(pack(b"text\ngood\n"), name)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a spreadsheet", b"PAR1\x15\x04"])
def test_a_spreadsheet_and_a_parquet_are_not_text(convert: Any, content: bytes) -> None:
    with pytest.raises(InputError, match="expected text: name it"):
        convert(content)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a", b"a\n", b"a\n\n", b"a\r\n \r\nb", b"a\rb\n", "a\x0bb\x85c\u2028d\n".encode(), b"a;id\n"]
)
def test_a_txt_has_the_lines_that_open_gives(convert: Any, tmp_path: Path, content: bytes) -> None:
    found = convert(content, "in.txt", "out.jsonl")
    with (tmp_path / "in.txt").open(encoding="utf-8") as file:
        assert found.texts == [line.removesuffix("\n") for line in file]
    assert found.columns == ("text",) and found.reasons == {}


def test_a_txt_cannot_be_an_output() -> None:
    with pytest.raises(OptionError, match=r"write \.csv or \.jsonl"):
        FileFormat.of("out.txt", output=True)


def test_a_mark_that_comes_byte_by_byte_is_found(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)

    def feed() -> None:
        with pipe.open("wb", buffering=0) as file:
            for byte in "text\nцена\n".encode("utf-16"):
                file.write(bytes([byte]))
                time.sleep(0.001)

    writer = threading.Thread(target=feed)
    writer.start()
    source = open_source(InputFile(str(pipe)), FileFormat.of(str(pipe)), 10, ReadOptions())
    assert [text for rows in source.chunks("text", None) for text in rows.texts] == ["цена"]
    source.close()
    writer.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "of Office, expected text: save it as .csv"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"SQLite format 3\0" + bytes(84), "a database"),
        (b"ARROW1\0\0", "write it as .parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git lfs pull"),
        (b"text\ngood\n" + bytes(500), "another kind of file, or damaged"),
    ],
)
@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl"])
def test_a_file_of_another_kind_is_named(convert: Any, content: bytes, said: str, name: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        convert(content, name)


def test_a_file_that_is_packed_twice_is_to_be_unpacked(convert: Any) -> None:
    with pytest.raises(InputError, match=r"in\.csv\.gz is gzip, expected text: unpack it first"):
        convert(gzip.compress(gzip.compress(b"text\ngood\n")), "in.csv.gz")
