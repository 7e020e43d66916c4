"""Rows of all kinds, written and read by the standard library and pyarrow, and the embedded model to judge scores by."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest, write_manifest

LONG = ("so " * 33_400).strip() + " good"  # more than 100,000 characters
NASTY = [
    "I really loved this movie.",
    'He said "awful", twice: ""',
    '"',
    "two\nlines",
    "carriage\rreturn",
    "both\r\n",
    "a\ttab, a comma; a semicolon",
    "emoji 😀 👩‍👩‍👧 and ümläuts",
    "",
    "   ",
    "\N{ZERO WIDTH NO-BREAK SPACE}a mark inside",
    "a\x00null byte",
    "line\u2028separator\x85next",
    "'; DROP TABLE reviews; --",
    "\\N",
    "NULL",
    LONG,
    "I really loved this movie.",
]


@pytest.fixture(scope="session")
def classifier(artifact: Path) -> Any:
    with Classifier.from_pretrained(artifact) as loaded:
        yield loaded


@pytest.fixture
def nasty() -> list[dict[str, str]]:
    return [{"id": f"{number:03d}", "text": text, "other": text[::-1]} for number, text in enumerate(NASTY)]


@pytest.fixture
def variant(artifact: Path, tmp_path: Path) -> Any:
    """Return a function that copies the artifact with another problem type."""

    def make(problem_type: str) -> Path:
        folder = tmp_path / problem_type
        shutil.copytree(artifact, folder)
        manifest = read_manifest(folder)
        written = {**manifest.created_with, "test": "written again"}
        write_manifest(folder, dataclasses.replace(manifest, problem_type=problem_type, created_with=written))
        return folder

    return make


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        return pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()
    return content


@pytest.fixture
def read() -> Any:
    """Return a function that reads a file of any of the formats into a list of dicts."""

    def rows(path: Path) -> list[dict[str, Any]]:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        text = unpacked(path).decode()
        if ".jsonl" in path.suffixes:
            return [json.loads(line) for line in text.split("\n")[:-1]]
        csv.field_size_limit(2**31 - 1)
        delimiter = "\t" if ".tsv" in path.suffixes else ","
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))

    return rows


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Return a function that writes rows of strings and nulls to a file of any of the formats."""

    def rows(name: str, table: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
            return path
        if ".jsonl" in path.suffixes:
            content = "".join(f"{json.dumps(row)}\n" for row in table).encode()
        else:
            text = io.StringIO(newline="")
            delimiter = "\t" if ".tsv" in path.suffixes else ","
            writer = csv.DictWriter(text, list(table[0]), delimiter=delimiter, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(table)
            content = text.getvalue().encode()
        if path.suffix == ".gz":
            half = len(content) // 2
            content = gzip.compress(content[:half]) + gzip.compress(content[half:])  # as `cat a.gz b.gz` makes
        if path.suffix == ".zst":
            half = len(content) // 2
            content = b"".join(pyarrow.compress(part, codec="zstd", asbytes=True) for part in (content[:half], content[half:]))
        path.write_bytes(content)
        return path

    return rows


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded
