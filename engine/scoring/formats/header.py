"""The first line of a csv: whether it can be a header, and what to give if it is something else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import InputError, OptionError
from .base import GUESSES

_DELIMITERS = (";", "\t", "|", ",")
_NAMES = {"tab": "\t", "\\t": "\t"}  # as they are given in a shell
_SEP = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)  # spreadsheets write it
_NUMBER = re.compile(r"[+-]?\d+([.,:/-]\d+)*%?")
_NAME_LENGTH, _NAME_WORDS = 60, 4


def parse_delimiter(delimiter: object) -> str:
    """Return the character of a delimiter; ``tab`` is one too.

    Raises:
        OptionError: It is not one character, or a quote or the end of a line.
    """
    character = _NAMES.get(delimiter.lower(), delimiter) if isinstance(delimiter, str) else delimiter
    if not isinstance(character, str) or len(character) != 1 or character in '"\r\n\0' or "\ud800" <= character <= "\udfff":
        raise OptionError(f"delimiter is {ascii(delimiter)[:40]}: give one character, such as ';', or tab")
    return character


def shown_delimiter(delimiter: str) -> str:
    """Return a delimiter as it is given in a shell."""
    return "tab" if delimiter == "\t" else f"'{delimiter}'"


def announced(line: str) -> str | None:
    """Return the delimiter that a first line ``sep=;`` announces."""
    match = _SEP.fullmatch(line)
    return match and match[1]


def usual(name: str) -> bool:
    """Return whether a name is usual for a column of texts."""
    return name.strip().lower() in GUESSES


def check_header(columns: Sequence[str], delimiter: str, source: str, *, named: bool) -> None:
    """Check that a first line can be a header; ``named`` if the caller names the column of the texts.

    Raises:
        InputError: It has zero bytes, or it is one cell without a usual name: then it may be a text, or have another delimiter.
    """
    if any("\0" in name for name in columns):
        raise InputError(
            f"{source} has zero bytes in its header, as UTF-16 without a byte order mark has: give --encoding utf-16-le"
        )
    if named or len(columns) != 1 or usual(columns[0]):
        return
    first = repr(columns[0] if len(columns[0]) <= _NAME_LENGTH else f"{columns[0][:_NAME_LENGTH]}...")
    ways = [f"if that is its name, give --text-column {first}", "if it is a text, --no-header"]
    if _is_data(columns[0]):
        ways.reverse()
    for other in _DELIMITERS:
        if other in columns[0]:
            ways.insert(0, _delimiter_hint(other))
            break
    raise InputError(
        f"{source} has one column, and its first line is {first}, which is not a usual name for texts: {'; '.join(ways)}"
    )


def check_text(line: str, source: str) -> None:
    """Check that the first line of a txt is a text, and not that of a table, which spreadsheets save as .txt too.

    Raises:
        InputError: It has a usual name for texts between delimiters, or a number between tabs.
    """
    table = announced(line) is not None
    for delimiter in _DELIMITERS:
        cells = [cell.strip(' "') for cell in line.rstrip("\n").split(delimiter)]
        numbers = delimiter == "\t" and any(map(_NUMBER.fullmatch, cells))
        if len(cells) > 1 and (table or numbers or any(map(usual, cells))):
            form = {",": "csv", "\t": "tsv"}.get(delimiter) or f"csv --delimiter {shown_delimiter(delimiter)}"
            raise InputError(
                f"{source} begins with {line[:_NAME_LENGTH]!r}, like a table: give --input-format {form}, "
                "or --no-header if each line is a text"
            )


def header_hint(columns: Sequence[str], delimiter: str) -> str:
    """Return what may be wrong with a header in which the column of the texts was not found; empty if nothing is odd.

    Example:
        >>> header_hint(["id;review", "stars"], ",")
        "if ';' is between its cells, give --delimiter ';'"
    """
    delimiter = parse_delimiter(delimiter)
    line = delimiter.join(columns)
    hints = []
    for other in _DELIMITERS:
        names = [name for column in columns if other in column for name in column.split(other)]
        if other != delimiter and (line.count(other) > line.count(delimiter) or any(map(usual, names))):
            hints.append(_delimiter_hint(other))
            break
    if any(map(_is_data, columns)):
        hints.append(
            "if its first line is a row, give --no-header, and the column's number as --text-column; "
            "if each line is one text, --input-format txt"
        )
    return "; ".join(hints)


def _delimiter_hint(delimiter: str) -> str:
    shown = shown_delimiter(delimiter)
    return f"if {shown} is between its cells, give --delimiter {shown}"


def _is_data(cell: str) -> bool:
    """Return whether a cell looks like a number or a sentence."""
    words = cell.split()
    sentence = len(words) > _NAME_WORDS or len(cell) > _NAME_LENGTH or (len(words) > 1 and words[-1].endswith((".", "!", "?")))
    return sentence or _NUMBER.fullmatch(cell.strip()) is not None
