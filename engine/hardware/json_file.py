"""The one reader of small JSON files: manifest, configs, tokenizer files, index of shards, cache.

Such a file may come from anyone, so its kind, size, depth, numbers and names are checked before anything else sees it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, FusedBertError, shown

SMALL = 16 << 20  # bytes of a config or manifest at most
LARGE = 64 << 20  # of a file with a vocabulary; XLM-R's tokenizer.json has 17 MB
_DEEPEST = 64  # levels; tokenizer.json has about 8
_MOST_DIGITS = 300  # of an integer; a float holds 308
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe must not wait for its writer
_STRING = rb'(?s:"[^"\\]*+(?:\\.[^"\\]*+)*+"?)'  # linear, also for one that does not end; compiled when needed
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_json_file(
    path: Path,
    *,
    way_out: str,
    error: type[FusedBertError] = ArtifactError,
    limit: int = SMALL,
    encoding: str = "utf-8-sig",
) -> dict[str, Any] | None:
    """Return a file's JSON object, or None if the file does not exist.

    Args:
        path: The file.
        way_out: What the user can do; it ends the message.
        error: Class of the error.
        limit: Bytes at most.
        encoding: ``utf-8`` refuses a byte order mark, as transformers does.

    Raises:
        FusedBertError: ``error``: it is not a regular file, too large, or not what ``parse_object`` takes.

    Example:
        >>> read_json_file(Path("models/sst2-mini/config.json"), way_out="save it again")["model_type"]
        'bert'
    """
    try:
        return parse_object(read_regular(path, limit), encoding)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as reason:
        detail = (reason.strerror if isinstance(reason, OSError) else None) or reason
        raise error(f"{path} cannot be read as JSON ({detail}): {way_out}") from None


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is a folder, a pipe or a device, or has more than ``limit`` bytes.
    """
    with os.fdopen(os.open(path, _OPEN), "rb") as file:
        check_regular(os.fstat(file.fileno()), limit)
        return file.read(limit)


def check_regular(status: os.stat_result, limit: int) -> None:
    """Raise ValueError for the status of a folder, a pipe or a device, or of more than ``limit`` bytes."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size} bytes, expected at most {limit}")


def parse_object(content: bytes, encoding: str = "utf-8-sig") -> dict[str, Any]:
    """Return the JSON object in UTF-8.

    Raises:
        ValueError: It is something else or nested deeply, a name is given twice, a number has hundreds of digits, or a string
            has a lone surrogate, which no file can hold. ``NaN`` and ``Infinity`` are read, because transformers writes them.
    """
    text = content.decode(encoding)
    if content.count(b"[") + content.count(b"{") > _DEEPEST:
        _check_depth(content)
    value = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__}, expected an object")
    if b"\\ud" in content.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half a surrogate pair, {error.object[error.start]!a}, in a string") from None
    return value


def _check_depth(content: bytes) -> None:
    """Refuse brackets within brackets without end, before the parser, which would use up the stack."""
    brackets = re.sub(_STRING, b"", content).translate(None, _NO_BRACKETS)
    for _ in range(_DEEPEST + 1):  # each takes off one level
        before, brackets = brackets, brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == len(before):
            break
    else:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if brackets.count(b"[") + brackets.count(b"{") > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep, or not closed")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {shown(twice)} is given twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
