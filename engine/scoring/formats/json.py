"""JSON text: single values, and arrays that are read value by value, in memory that does not grow with the file."""

from __future__ import annotations

import decimal
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ...errors import InputError

_PIECE = 1 << 16  # characters
_FIRST_LINE = 4 << 20  # characters of a line that is read to decide what a file is
_NEAR = 16  # characters before the end of a piece, in which a token may be cut
_SPACE = re.compile(r"[ \t\r\n]*")
_BREAK = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")  # only between tokens
_TOKEN_BEGINS = re.compile(r"[\w\\.+-]{0,6}[ \t\r\n]*")  # a word, a number or an escape that is cut off
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*("?)|[{}\[\]]', re.DOTALL)  # a string may be cut off
_LONG = 4300  # digits; Python refuses to convert more


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= _LONG else decimal.Decimal(digits)


_decoder, _tolerant = json.JSONDecoder(), json.JSONDecoder(parse_int=_integer)


def parse(text: str) -> Any:
    """Parse JSON; integers of thousands of digits are decimals.

    Raises:
        ValueError: It is not JSON, or nested deeper than Python reads.
    """
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _tolerant.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_array(text: io.TextIOBase, kind: str, name: str) -> tuple[bool, list[str]]:
    """Return whether a file is an array of rows, instead of one a line; and what was read of it.

    Raises:
        InputError: It is called .json, and is neither.
    """
    read: list[str] = []
    first = _next_line(text, read)
    start = first.lstrip()
    if kind == "json":
        if start.startswith("["):
            return True, read
        _check_lines(first, _next_line(text, read), name)
        return False, read
    if not start.startswith("["):
        return False, read
    inner = start[1:].lstrip()
    if not inner:
        inner = _next_line(text, read).lstrip()
    if not inner.startswith(("{", "]")):
        return False, read
    try:
        parse(first)
    except ValueError:  # it ends in another line
        return True, read
    return not _next_line(text, read), read


def blank(line: str) -> bool:
    """Return whether a line has only white space of JSON's kind."""
    return not line.strip(" \t\r\n\v\f")


def _next_line(text: io.TextIOBase, read: list[str]) -> str:
    """Return the beginning of the next line that is not blank, and add it to ``read``; nothing at the end."""
    while line := text.readline(_FIRST_LINE):
        if not blank(line):
            read.append(line)
            return line
    return ""


def _check_lines(first: str, second: str, name: str) -> None:
    """Check that a .json has an object in its first line, and other lines."""
    expected = "expected an array of objects, [{...}, ...], or an object a line"
    if not first:
        raise InputError(f"{name} is empty, {expected}")
    try:
        is_object = isinstance(parse(first), dict)
    except ValueError:
        if first.lstrip().startswith("{"):
            raise InputError(f"{name} is one object, or cut off; {expected}: give the array in it") from None
        raise InputError(f"{name} begins with {first.strip()[:40]!r}, {expected}") from None
    if not is_object:
        raise InputError(f"{name} begins with {first.strip()[:40]!r}, {expected}")
    if not second:
        raise InputError(f"{name} is one object, {expected}: if it is a row, give --input-format jsonl")


class Elements:
    """The values of an array, each with its text in one line."""

    def __init__(self, text: io.TextIOBase, read: list[str], name: str) -> None:
        self._text, self._name, self._count = text, name, 0
        self._buffer, self._at, self._before, self._complete = "".join(read), 0, 0, False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield text and value of each, None for one that is nested too deep; InputError if the array is damaged."""
        self._skip()
        self._at += 1  # the bracket
        if self._skip() == "]":
            self._at += 1
        else:
            yield self._element()
            while self._separator() == ",":
                yield self._element()
        if self._skip():
            raise self._error("there is more after the end of the array")

    def _element(self) -> tuple[str, Any]:
        self._skip()
        while True:
            decoded = self._decode()
            if decoded is not None:
                break
            self._grow()
        value, end = decoded
        text = self._buffer[self._at : end]
        self._at, self._count = end, self._count + 1
        return (_BREAK.sub(" ", text) if "\n" in text or "\r" in text else text), value

    def _decode(self) -> tuple[Any, int] | None:
        """Return the next value and its end; None if more of the file is needed."""
        near = len(self._buffer) - _NEAR
        try:
            try:
                value, end = _decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError:
                raise
            except ValueError:
                value, end = _tolerant.raw_decode(self._buffer, self._at)
        except json.JSONDecodeError as error:
            open_string = error.msg.startswith("Unterminated string")
            if not self._complete and (open_string or error.pos >= near):
                return None
            if self._complete and (open_string or _TOKEN_BEGINS.fullmatch(self._buffer, error.pos)):
                raise self._error("it is cut off") from None
            raise self._error(f"{error.msg}, at character {self._before + error.pos + 1}") from None
        except RecursionError:
            value, end = None, self._end()
            if end == 0:
                return None
        return None if end > near and not self._complete else (value, end)

    def _end(self) -> int:
        """Return the end of a value that is nested too deep to be parsed, or 0 if more of the file is needed."""
        level = 0
        for token in _TOKENS.finditer(self._buffer, self._at):
            if token[1] == "":  # a string without its end
                break
            level += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
            if level == 0:
                return token.end()
        if self._complete:
            raise self._error("it is cut off")
        return 0

    def _separator(self) -> str:
        found = self._skip()
        if found not in (",", "]"):
            raise self._error(f"{found!r} where ',' or ']' comes next" if found else "it is cut off")
        self._at += 1
        return found

    def _skip(self) -> str:
        """Skip white space; return the next character, or nothing at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._complete:
                return ""
            self._grow()

    def _grow(self) -> None:
        """Read on, twice as much if a value needs it, so that reading costs no more than the length."""
        rest = self._buffer[self._at :]
        piece = self._text.read(max(_PIECE, len(rest)))
        self._before, self._at, self._complete = self._before + self._at, 0, not piece
        self._buffer = rest + piece

    def _error(self, what: str) -> InputError:
        return InputError(f"{self._name} is damaged after row {self._count} of its array: {what}; copy or write it again")
