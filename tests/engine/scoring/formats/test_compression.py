"""Compressed files, in and out, compared with the standard library's modules and pyarrow."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from fusedbert.engine import InputError, OptionError, StorageError
from fusedbert.engine.scoring.formats import FileFormat, open_source
from fusedbert.engine.scoring.formats.base import ReadOptions
from fusedbert.engine.scoring.formats.input import InputFile

TEXTS = [f"row {number}, of text {number * 7919 % 10007}" for number in range(3000)]
CONTENT = "".join(f"{text}\n" for text in TEXTS).encode()


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def unpacked(path: Path) -> bytes:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            (name,) = packed.namelist()
            return packed.read(name)
    if path.suffix == ".zst":
        return pyarrow.CompressedInputStream(pyarrow.BufferReader(path.read_bytes()), "zstd").read()
    return UNPACK[path.suffix](path.read_bytes())


UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
MEMBERS = pytest.mark.parametrize("suffix", list(PACK))


@MEMBERS
def test_members_one_after_the_other_are_read_as_one_file(suffix: str, convert: Any) -> None:
    pack = PACK[suffix]
    half = CONTENT.index(b"\n", len(CONTENT) // 2) + 3
    whole = pack(CONTENT[:1]) + pack(b"") + pack(b"") + pack(CONTENT[1:half]) + pack(CONTENT[half:]) + pack(b"")
    assert convert(whole, f"in.txt{suffix}").texts == TEXTS
    assert convert(pack(b""), f"in.txt{suffix}").texts == []
    with pytest.raises(InputError, match="cut off while it was copied"):
        convert(b"", f"in.txt{suffix}")


@MEMBERS
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole, pack: whole[:-9],
        lambda whole, pack: whole[: len(whole) // 2],
        lambda whole, pack: whole + b"something else",
        lambda whole, pack: whole + b"XXXX" + pack(b"more\n")[4:],
        lambda whole, pack: whole + pack(b"more\n")[:-5],
        lambda whole, pack: CONTENT,
    ],
    ids=["cut at its end", "cut in its middle", "with more after it", "second damaged", "second cut", "not compressed"],
)
def test_a_damaged_file_is_an_error(suffix: str, damage: Any, convert: Any) -> None:
    with pytest.raises(InputError, match="damaged, or was cut off") as caught:
        convert(damage(PACK[suffix](CONTENT), PACK[suffix]), f"in.txt{suffix}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_an_output_is_read_by_other_programs(suffix: str, kind: str, convert: Any) -> None:
    plain = convert(CONTENT, "in.txt", f"plain.{kind}", chunk_rows=700).path.read_bytes()
    found = convert(CONTENT, "in.txt", f"out.{kind}{suffix}", chunk_rows=700).path
    first = found.read_bytes()
    assert unpacked(found) == plain
    assert convert(CONTENT, "in.txt", found.name, chunk_rows=700).path.read_bytes() == first
    assert unpacked(convert(CONTENT, "in.txt", f"streamed.{kind}{suffix}", chunk_rows=700, streamed=True).path) == plain
    if suffix == ".zip":
        assert zipfile.ZipFile(found).namelist() == [f"out.{kind}"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_an_output_without_rows_is_complete(suffix: str, convert: Any) -> None:
    for streamed in (False, True):
        path = convert(b"text\n", "in.csv", f"out.json{suffix}", streamed=streamed).path
        assert json.loads(unpacked(path) if suffix else path.read_bytes()) == []


@pytest.mark.parametrize("members", [["in.csv"], ["folder/", "folder/in.csv"], ["in.csv", "__MACOSX/._in.csv"], ["a.CSV"]])
def test_a_zip_has_one_file_whose_name_gives_the_format(members: list[str], convert: Any) -> None:
    packed = zipped({name: b"" if name.endswith("/") else b"text,id\ngood,1\n" for name in members})
    assert convert(packed, "in.zip").columns == ("text", "id")
    assert convert(packed, "in.csv.zip").texts == ["good"]


def test_the_name_of_a_zip_comes_before_that_of_its_file(convert: Any) -> None:
    assert convert(zipped({"data": b"a,b\n"}), "in.txt.zip").texts == ["a,b"]
    assert convert(zipped({"data.jsonl": b'{"text": "a"}\n'}), "in.zip").texts == ["a"]


@pytest.mark.parametrize(
    ("packed", "error", "said"),
    [
        (zipped({"a.csv": b"text\n", "b.csv": b"text\n"}), InputError, r"has 2 files \('a.csv', 'b.csv'\), expected one"),
        (zipped({}), InputError, "has 0 files, expected one"),
        (zipped({"a.csv": CONTENT})[:-30], InputError, "damaged"),
        (b"", InputError, "damaged"),
        (b"text\ngood\n", InputError, "damaged"),
        (zipped({"a.bin": b"text\n"}), OptionError, r"format of 'a\.bin' in .*in\.zip is not known"),
        (zipped({"a.parquet": b"PAR1"}), OptionError, "parquet compresses"),
    ],
)
def test_a_zip_that_cannot_be_one_file_is_an_error(packed: bytes, error: Any, said: str, convert: Any) -> None:
    with pytest.raises(error, match=said):
        convert(packed, "in.zip")


@pytest.mark.parametrize(
    ("local", "central", "value", "said"), [(6, 8, 1, "encrypted"), (8, 10, 99, "cannot be read as a zip")]
)
def test_a_zip_that_python_cannot_unpack_is_an_error(local: int, central: int, value: int, said: str, convert: Any) -> None:
    packed = bytearray(zipped({"a.csv": CONTENT}))
    packed[local] = packed[packed.index(b"PK\x01\x02") + central] = value
    with pytest.raises(InputError, match=said):
        convert(bytes(packed), "in.zip")


def test_a_zip_with_damaged_content_is_an_error(convert: Any) -> None:
    packed = bytearray(zipped({"a.txt": CONTENT}))
    packed[len(packed) // 2] ^= 255
    with pytest.raises(InputError, match="damaged"):
        convert(bytes(packed), "in.zip")


@pytest.mark.parametrize("name", ["pipe.csv.zip", "pipe.parquet"])
def test_a_zip_and_a_parquet_cannot_come_from_a_pipe(name: str, tmp_path: Path) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.open("wb").close())
    writer.start()
    file = InputFile(str(pipe))
    with pytest.raises(InputError, match="read from its end"):
        open_source(file, FileFormat.of(str(pipe)), 10, ReadOptions())
    file.close()
    writer.join()


def test_a_zip_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        FileFormat.of(str(tmp_path / "none.zip"))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("out.zip", {"output": True}, r"name it \.csv, .*\.zip, or give --output-format"),
        ("in.xls", {}, r"\.txt.*\.xz.*--input-format"),
        ("in.csv", {"kind": "xls"}, "the format is 'xls': give one of csv, tsv, txt, jsonl, json, parquet"),
        ("out.parquet.bz2", {"output": True}, "compresses its own columns"),
    ],
)
def test_a_format_that_is_not_known_is_refused(name: str, options: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        FileFormat.of(name, **options)
