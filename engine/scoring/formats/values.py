"""Values of cells and of JSON: how each type is written, and those that cannot be."""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_SURROGATES = re.compile("[\ud800-\udfff]")
# Levels of lists and objects that are converted: Python's own limit depends on the depth of the caller.
_LEVELS = 100
_ERROR_CHARACTERS, _ERROR_LEVELS = 1000, 20


class UnconvertibleError(ValueError):
    """A value that another format cannot hold; its message says what the value is."""


def one_line(error: BaseException, length: int = 200) -> str:
    """Return the beginning of an exception's message, as one line."""
    return " ".join(str(error).split())[:length]


def valid(text: str) -> bool:
    """Return whether a string is free of lone surrogates."""
    return text.isascii() or not _SURROGATES.search(text)


def replace(text: str) -> str:
    """Replace lone surrogates by U+FFFD."""
    return text if valid(text) else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def dump(value: Any) -> str:
    """Write a value as JSON, with letters unescaped."""
    return json.dumps(value, ensure_ascii=False)


def cell(value: Any) -> str:
    """Write a value as a cell of a csv: null is empty, times are ISO 8601, lists and objects are JSON.

    Raises:
        UnconvertibleError: It is nested too deep, or has a key that is not Unicode text.
    """
    if isinstance(value, str):
        return replace(value)
    if value is None:
        return ""
    value = plain(value, finite=False)
    return value if isinstance(value, str) else str(value) if isinstance(value, float) else dump(value)


def member(value: Any) -> str:
    """Write a value as JSON, as ``plain`` converts it."""
    return dump(plain(value))


def plain(value: Any, *, finite: bool = True, levels: int = _LEVELS) -> Any:
    """Convert a value to JSON's types: decimals to strings, bytes to base64; NaN and infinity to null if ``finite``.

    Raises:
        UnconvertibleError: It is nested deeper than ``levels``, or has a key that is not Unicode text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) or not finite else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (dict, list, tuple)):
        return nested(value, lambda each: plain(each, levels=levels - 1), levels)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)  # decimals, durations and long integers


def nested(value: Any, convert: Callable[[Any], Any], levels: int) -> Any:
    """Convert the values of an object or a list, which may have as many levels below it, and check the keys."""
    if levels == 0:
        raise UnconvertibleError("nested too deep")
    if not isinstance(value, dict):
        return [convert(each) for each in value]
    keys = [str(key) for key in value]
    if not all(map(valid, keys)):
        raise UnconvertibleError("an object with a key that is not Unicode text")
    return {key: convert(each) for key, each in zip(keys, value.values(), strict=True)}


def json_value(value: object, *, exact: bool = False) -> str:
    """Write an added value as JSON; numbers with 6 decimals, or all digits of a float32 if ``exact``.

    Example:
        >>> json_value(1e-3), json_value(1.0 / 3000, exact=True), json_value([19.7329, 2e6], exact=True)
        ('0.001000', '0.00033333333', '[19.7329, 2000000.0]')
    """
    if isinstance(value, float):
        return _all_digits(value) if exact else f"{value:.6f}"
    if isinstance(value, list):
        return f"[{', '.join(json_value(each, exact=exact) for each in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{dump(key)}: {json_value(each, exact=exact)}' for key, each in value.items())}}}"
    return dump(value)


def _all_digits(value: float) -> str:
    """Write the digits that identify a float32, with an exponent instead of many zeros."""
    number = np.float32(value)
    return np.format_float_positional(number, trim="0") if value == 0.0 or 1e-4 <= abs(value) < 1e15 else str(number)


def error_content(value: Any) -> Any:
    r"""Return what the list of errors shows of a value: JSON of about 1,000 characters and few levels.

    Example:
        >>> error_content(["caf\udce9", "x" * 2000])[0], len(error_content(["caf\udce9", "x" * 2000])[1])
        ('caf\\xe9', 989)
    """
    return _shown(value, [_ERROR_CHARACTERS], _ERROR_LEVELS)


def _shown(value: Any, left: list[int], levels: int) -> Any:
    """Return the beginning of a value; ``left`` holds the number of characters that may follow."""
    if left[0] <= 0 or levels == 0:
        return "..."
    left[0] -= 2  # of a list's brackets, or a comma and a space
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return _entries(value, left, levels)
    if isinstance(value, (list, tuple)):
        items: list[Any] = []
        for each in value:
            items.append(_shown(each, left, levels - 1))
            if left[0] <= 0:
                break
        return items if len(items) == len(value) else [*items, "..."]
    if isinstance(value, (int, float)) and abs(value) < 1e18:  # NaN and infinity are not JSON
        left[0] -= len(repr(value))
        return value
    return _beginning(value, left)


def _entries(value: dict[Any, Any], left: list[int], levels: int) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, each in value.items():
        entries[_beginning(key, left)] = _shown(each, left, levels - 1)
        if left[0] <= 0:
            break
    return entries if len(entries) == len(value) else {**entries, "...": "..."}


def _beginning(value: Any, left: list[int]) -> str:
    r"""Return the beginning of a string, or of a value as one; bytes that are not text as ``\xe9``."""
    length = max(0, left[0])
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value[: length + 1]).decode("utf-8", "backslashreplace")
    else:
        try:
            text = (value if isinstance(value, str) else str(value))[: length + 1]
        except ValueError:  # an integer of thousands of digits
            text = f"a value of type {type(value).__name__}"
        if not valid(text):
            text = "".join(_escaped(character) for character in text)
    left[0] -= len(text) + 1
    return text if len(text) <= length else f"{text[:length]}..."


def _escaped(character: str) -> str:
    if valid(character):
        return character
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
