"""A corpus: the texts of a file as users have them, and their labels where there are any.

csv, tsv, jsonl, parquet and their compressed forms are read by the same code as ``fusedbert score`` reads them; ``.txt`` is
one text a line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import InputError, OptionError, StorageError
from fusedbert.engine.scoring.columns import GUESSES, find_named
from fusedbert.engine.scoring.files import Form, Kind
from fusedbert.engine.scoring.readers import open_source

LABEL = "label"  # the column that is taken for labels where none is named
_WINDOW = 4096  # rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts, and what is known of them.

    Attributes:
        name: The file's name, without its folder.
        texts: The texts, one at least.
        labels: The label of each text as the file has it, a string or an integer; None where the file has no labels.
        text_column: The column of the texts; None for a plain text file.
        label_column: The column of the labels, or None.
        skipped: Rows without a usable text, which are left out.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[Any, ...] | None = None
    text_column: str | None = None
    label_column: str | None = None
    skipped: int = 0

    def __str__(self) -> str:
        return self.name


def read_corpus(
    path: Path, *, text_column: str | None = None, label_column: str | None = None, limit: int | None = None
) -> Corpus:
    """Read a file of texts.

    Args:
        path: ``.txt`` (one a line), ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        text_column: Column of the texts; None for ``text``, else another usual name such as ``sentence``, else the first.
        label_column: Column of the labels; None for ``label`` where there is one.
        limit: Texts at most, from the beginning.

    Raises:
        InputError: There is no such column, the rows cannot be read, or there is no text in them.
        StorageError: The file cannot be read.
        OptionError: Its format is not known.
        MissingDependencyError: Its format needs pyarrow, which is not installed.
    """
    corpus = (
        _read_lines(path, limit, (text_column, label_column))
        if path.suffix.lower() == ".txt"
        else _read_rows(path, _form(path), text_column, label_column, limit)
    )
    if not corpus.texts:
        raise InputError(f"{path} has no text in it: expected one at least")
    return corpus


def _form(path: Path) -> Form:
    try:
        return Form.of(str(path))
    except OptionError:
        raise OptionError(
            f"{path} is of no known format: name it .tsv, .csv or .jsonl, with .gz or .zst where compressed, .parquet or .txt"
        ) from None


def _read_lines(path: Path, limit: int | None, columns: Sequence[str | None]) -> Corpus:
    named = next((column for column in columns if column is not None), None)
    if named is not None:
        raise InputError(f"{path} is plain text and has no column {named!r}: leave the option out, or give a .csv or .tsv")
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}): convert it first, with iconv -t UTF-8 for example"
        ) from None
    stripped = [line.removesuffix("\r") for line in lines]
    texts = [line for line in stripped if line.strip()]
    blank = len(stripped) - len(texts) - (not stripped[-1])  # what follows the last newline is no line
    return Corpus(name=path.name, texts=tuple(texts[:limit]), skipped=0 if limit is not None else blank)


def _read_rows(path: Path, form: Form, text: str | None, label: str | None, limit: int | None) -> Corpus:
    """Read a table. A tsv of the research kind has quotes that are plain characters: where they do not fit, they are that."""
    if form.kind is not Kind.TSV:
        return _read_table(path, form, text, label, limit, quotes=True)
    try:
        return _read_table(path, form, text, label, limit, quotes=True)
    except InputError:
        return _read_table(path, form, text, label, limit, quotes=False)


def _read_table(path: Path, form: Form, text: str | None, label: str | None, limit: int | None, *, quotes: bool) -> Corpus:
    source = open_source(str(path), form, _WINDOW, quotes=quotes)
    texts: list[str] = []
    labels: list[Any] = []
    skipped = 0
    try:
        column = find_named(source.columns, text, str(path)) if text is not None else _guess(source.columns, path)
        known = find_named(source.columns, label, str(path)) if label is not None else _label(source.columns, column)
        for window in source.windows(column, None):
            if limit is not None and len(texts) >= limit:
                break
            found = window.rows.members() if known is not None else [""] * len(window.texts)
            for index, (value, members) in enumerate(zip(window.texts, found, strict=True)):
                if value is None or index in window.faults:
                    skipped += 1
                    continue
                texts.append(value)
                labels.append(json.loads(f"{{{members}}}").get(known) if known is not None else None)
    finally:
        source.close()
    return Corpus(
        name=path.name,
        texts=tuple(texts[:limit]),
        labels=None if known is None else tuple(labels[:limit]),
        text_column=column,
        label_column=known,
        skipped=skipped,
    )


def _guess(columns: Sequence[str], path: Path) -> str:
    """Return the first usual name that is there, else the first column."""
    if not columns:
        raise InputError(f"{path} has no columns: expected a header, or one JSON object a line")
    return next((name for name in GUESSES if name in columns), columns[0])


def _label(columns: Sequence[str], text: str) -> str | None:
    return LABEL if LABEL in columns and text != LABEL else None


def gold(values: Sequence[Any] | None, labels: Sequence[str]) -> NDArray[np.int64] | None:
    """Match a corpus' labels with the model's.

    Args:
        values: What the file has: a label's name (in any case) or its number.
        labels: The model's labels.

    Returns:
        The number of each text's label, int64 ``[texts]``; -1 where it is none of the model's. None where the file has no
        labels, or fewer than half of them are the model's: then the file is labelled for something else.

    Example:
        >>> gold(["1", 0, "positive", "n/a"], ["NEGATIVE", "POSITIVE"]).tolist()
        [1, 0, 1, -1]
    """
    if values is None or not len(values):
        return None
    names = [name.strip().casefold() for name in labels]
    numbers = {name: index for index, name in enumerate(names) if names.count(name) == 1}  # one that two share is neither's
    found = np.array([_number(value, numbers, len(labels)) for value in values], dtype=np.int64)
    return found if 2 * (found >= 0).sum() >= len(found) else None


def _number(value: Any, names: Mapping[str, int], count: int) -> int:
    if isinstance(value, bool):
        return int(value) if count == 2 else -1
    if isinstance(value, int | float):
        return int(value) if 0 <= value < count and value == int(value) else -1
    text = str(value).strip().casefold()
    if text in names:
        return names[text]
    return int(text) if text.isascii() and text.isdigit() and int(text) < count else -1


def evenly(count: int, most: int) -> list[int]:
    """Choose indices spread evenly over ``count`` texts, all of them where there are no more than ``most``.

    Example:
        >>> evenly(10, 4)
        [0, 2, 5, 7]
    """
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


def built_in() -> Corpus:
    """Return the texts that the exporter checks graphs with, for a run without a file; the empty one is left out."""
    from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

    return Corpus(name="built-in texts", texts=tuple(_filled([*CHECK_TEXTS, *ROUNDING_TEXTS])))


def _filled(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text.strip()]
