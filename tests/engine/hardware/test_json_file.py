"""Small JSON files: what a hostile one may hold, and what an ordinary one has."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fusedbert.engine import ArtifactError, StorageError
from fusedbert.engine.hardware.json_file import LARGE, SMALL, parse_object, read_json_file

REFUSED = {
    b"[" * 5000 + b"]" * 5000: "nested more than 64 deep",
    b'{"x": ' * 100_000: "nested more than 64 deep, or not closed",
    b'{"a": 1, "b": {"c": 1, "c": 2}}': "the name 'c' is given twice",
    b'{"a": ' + b"9" * 5000 + b"}": "a number of 5000 digits",
    b'{"a": "\\ud800"}': "half a surrogate pair",
    b'{"\\udc00": 1}': "half a surrogate pair",
    b'{"a": "\xff"}': "utf-8",
    b'["a"]': "list, expected an object",
    b"null": "NoneType, expected an object",
    b"": "Expecting value",
    b'{"a": 1} {}': "Extra data",
    '{"a": 1}'.encode("utf-16"): "utf-8",
}


@pytest.mark.parametrize("content", REFUSED)
def test_hostile_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=REFUSED[content]) as caught:
        read_json_file(path, error=StorageError, way_out="write it again")
    assert str(caught.value).startswith(f"{path} cannot be read as JSON (") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("): write it again") and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": [1, -2.5e-9, None, True, "x"], "b": {"c": {"c": 1}}},
        {"brackets": ["[" * 500, '{"' * 500, "\\[" * 500, 'a"[']},
        {"many": [[i, {"i": i}] for i in range(2000)]},
        {"emoji": "\U0001f642", "é": "\x7f\u2028"},
        {"long": 10**299},
        {"infinite": [float("inf"), float("-inf")]},
    ],
)
def test_ordinary_files_are_read_as_json_reads_them(document: dict[str, object]) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only)
        assert parse_object(text.encode()) == document
        assert parse_object(b"\xef\xbb\xbf" + text.encode()) == document  # as editors on Windows write it


def test_a_depth_of_64_is_read_and_65_refused() -> None:
    assert parse_object(b'{"x":' * 64 + b"1" + b"}" * 64)
    with pytest.raises(ValueError, match="nested"):
        parse_object(b'{"x":' * 65 + b"1" + b"}" * 65)


def test_a_missing_file_is_none_and_a_folder_is_not(tmp_path: Path) -> None:
    assert read_json_file(tmp_path / "none.json", way_out="") is None
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ArtifactError, match=r"folder\.json cannot be read as JSON"):
        read_json_file(tmp_path / "folder.json", way_out="copy it again")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices with names")
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match="not a regular file"):
            read_json_file(path, way_out="copy it again")


@pytest.mark.parametrize("limit", [SMALL, LARGE])
def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, limit: int) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(limit + 1)  # a hole: nothing is written
    with pytest.raises(ArtifactError, match=f"{limit + 1} bytes, expected at most {limit}"):
        read_json_file(tmp_path / "large.json", way_out="copy it again", limit=limit)
