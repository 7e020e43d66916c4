"""Texts that a user gives to an export, as a file or in Python; tables are read as ``fusedbert score`` reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from fusedbert.engine.artifact import given_path
from fusedbert.engine.errors import FusedBertError, InputError, OptionError, shown
from fusedbert.engine.scoring.columns import find_named, find_text
from fusedbert.engine.scoring.formats import FileFormat
from fusedbert.engine.scoring.formats.base import ReadOptions, Rows, Source
from fusedbert.engine.scoring.formats.header import header_hint
from fusedbert.engine.scoring.inputs import open_inputs
from fusedbert.engine.text.inputs import Item, Text, check_items

Given: TypeAlias = "str | os.PathLike[str] | Iterable[Item]"
LEAST = 16  # texts; fewer show neither the range of activations nor a share of labels
_CHUNK_ROWS = 4096
_OF_SCORE = ("--delimiter", "--encoding", "--no-header", "--input-format")
_PLAIN = "export takes a comma in a csv, a tab in a tsv, UTF-8 and a header: save the file like that"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextColumns:
    """Columns of the tables that a user gives."""

    text: str | None = None  # None for the only candidate
    pair: str | None = None  # None for single texts
    label: str | None = None  # None for texts without labels

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not isinstance(value, str):
                raise OptionError(f"{name}_column is {shown(value)}, expected the name of a column")
        named = [value for value in dataclasses.astuple(self) if value is not None]
        if len(set(named)) < len(named):
            raise OptionError("text_column, pair_column and label_column name one column twice: name different ones")

    @property
    def named(self) -> bool:
        """True if a column is named."""
        return self != TextColumns()


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserTexts:
    """Texts that a user gave; ``labels`` has the cell of each one's label, None without a column of labels."""

    name: str  # of the file, or of the argument
    texts: tuple[Text, ...]
    labels: tuple[str, ...] | None = None


def read_texts(given: Given, option: str, columns: TextColumns, *, most: int | None = None) -> UserTexts:
    """Read a file or a collection of texts and pairs, at most the first ``most``; without ``most`` labels too.

    A table is a file with a suffix that ``fusedbert score`` knows; any other file has a text a line, and blank ones are
    skipped.

    Raises:
        OptionError: ``given`` is neither, cannot be read, lacks a column, or has fewer than ``LEAST`` texts.
    """
    if not isinstance(given, (str, os.PathLike)):
        found = UserTexts(name=f"the texts of {option}", texts=_checked(given, option, most))
    else:
        path = given_path(given, option, OptionError, "give the path of a file")
        try:
            found = _read_table(path, columns, most) if is_table(path) else _read_lines(path, most)
        except OptionError:
            raise
        except FusedBertError as error:
            hint = f"; {_PLAIN}" if any(name in str(error) for name in _OF_SCORE) else ""
            raise OptionError(f"{option}: {error}{hint}") from None
    if len(found.texts) < LEAST:
        raise OptionError(f"{option}: {found.name} holds {len(found.texts)} texts, at least {LEAST} are needed")
    return found


def check_columns(columns: TextColumns, calibrate: Given | None, evaluate: Given | None) -> None:
    """Raise ``OptionError`` if columns are named and no file has any."""
    given = [each for each in (calibrate, evaluate) if isinstance(each, (str, os.PathLike))]
    if columns.named and not any(is_table(Path(each)) for each in given):
        raise OptionError("columns are named, and neither calibrate nor evaluate is a table: leave them out, or give a .csv")
    if columns.label is not None and not (isinstance(evaluate, (str, os.PathLike)) and is_table(Path(evaluate))):
        raise OptionError(f"label_column is {columns.label!r}, and evaluate is not a table: give one with labels as evaluate")


def is_table(path: Path) -> bool:
    """Return whether a file has columns, by its suffix."""
    with contextlib.suppress(OptionError):
        return FileFormat.of(str(path)).kind != "txt"
    return False


def _checked(given: Iterable[Item], option: str, most: int | None) -> tuple[Text, ...]:
    try:
        return tuple(check_items(given)[:most])
    except InputError as error:
        raise OptionError(f"{option}: {error}") from None


def _read_lines(path: Path, most: int | None) -> UserTexts:
    """Read a text a line; raise ``OptionError`` if they are not UTF-8."""
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(filter(None, map(str.strip, file)))[:most]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as texts ({error}): give a UTF-8 file, one text a line") from None
    return UserTexts(name=path.name, texts=tuple(Text(text=line, index=i) for i, line in enumerate(lines)))


def _read_table(path: Path, columns: TextColumns, most: int | None) -> UserTexts:
    form = FileFormat.of(str(path))
    options = ReadOptions(named=columns.text is not None, target="jsonl")
    texts: list[Text] = []
    labels: list[str] | None = [] if columns.label is not None and most is None else None
    with contextlib.closing(open_inputs((str(path),), form, _CHUNK_ROWS, options)) as source:
        delimiter = {"csv": ",", "tsv": "\t"}.get(form.kind)
        hint = header_hint(source.columns, delimiter) if delimiter else ""
        text, pair = _find(source, columns, str(path), hint, labelled=labels is not None)
        for rows in source.chunks(text, pair):
            texts += _texts(rows, path)
            if labels is not None:
                labels += _labels(rows, str(columns.label))
            if most is not None and len(texts) >= most:
                break
    return UserTexts(name=path.name, texts=tuple(texts[:most]), labels=None if labels is None else tuple(labels))


def _find(source: Source, columns: TextColumns, name: str, hint: str, *, labelled: bool) -> tuple[str, str | None]:
    """Return the columns of the texts and of the second ones; calibration passes over that of the labels."""
    others = [] if columns.pair is None else [columns.pair]
    if columns.label is not None and (labelled or columns.label in source.columns):
        others.append(columns.label)
    for each in others:
        find_named(source.columns, each, name, hint)
    left = [column for column in source.columns if column not in others or column == columns.text]
    return find_text(left, columns.text, name, hint), columns.pair


def _texts(rows: Rows, path: Path) -> Iterator[Text]:
    if rows.errors:
        offset = min(rows.errors)
        raise InputError(f"{path}, row {rows.first + offset + 1}: {rows.errors[offset].reason}: mend the row, or leave it out")
    pairs: Sequence[str | None] = rows.pairs if rows.pairs is not None else [None] * len(rows.texts)
    for offset, (text, pair) in enumerate(zip(rows.texts, pairs, strict=True)):
        assert text is not None  # a row without a text has an error
        yield Text(text=text, pair=pair, index=rows.first + offset)


def _labels(rows: Rows, column: str) -> Iterator[str]:
    """Yield each row's label as text: a number of a jsonl is its digits."""
    for members in rows.data.members():
        value = json.loads(f"{{{members}}}").get(column)
        yield value if isinstance(value, str) else json.dumps(value)
