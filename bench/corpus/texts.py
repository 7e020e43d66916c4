"""A corpus: the texts of a file, and their labels if it has any.

csv, tsv, jsonl, json, parquet and their compressed forms are read by the code of ``fusedbert score``; ``.txt`` is one text a
line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import InputError, OptionError, StorageError
from fusedbert.engine.scoring.columns import find_named
from fusedbert.engine.scoring.formats import FileFormat, open_source
from fusedbert.engine.scoring.formats.base import GUESSES, ReadOptions
from fusedbert.engine.scoring.formats.input import InputFile

LABEL = "label"  # the usual column of labels
_WINDOW = 4096  # rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts, at least one, and their labels."""

    name: str  # of the file, without its folder
    texts: tuple[str, ...]
    labels: tuple[Any, ...] | None = None  # a string or an integer for each text; None if the file has none
    text_column: str | None = None  # None for a plain text file
    label_column: str | None = None
    skipped: int = 0  # rows without a usable text, which are left out


def read_corpus(
    path: Path, *, text_column: str | None = None, label_column: str | None = None, limit: int | None = None
) -> Corpus:
    """Read a file of texts.

    Args:
        path: ``.txt`` (one a line), ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        text_column: Column of the texts; None for ``text``, else another usual name such as ``sentence``, else the first.
        label_column: Column of the labels; None for ``label`` if it exists.
        limit: Texts at most, from the beginning.

    Raises:
        InputError: A column is missing, the rows cannot be read, or none has a text.
        StorageError: The file cannot be read.
        OptionError: Its format is unknown.
        MissingDependencyError: Its format needs pyarrow, which is not installed.
    """
    if path.suffix.lower() == ".txt":
        if column := text_column or label_column:
            raise InputError(f"{path} is plain text and has no column {column!r}: leave the option out, or give a .csv or .tsv")
        corpus = _read_lines(path, limit)
    else:
        corpus = _read_rows(path, text_column, label_column, limit)
    if not corpus.texts:
        raise InputError(f"{path} has no text in it: expected at least one")
    return corpus


def _read_lines(path: Path, limit: int | None) -> Corpus:
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
    blank = len(stripped) - len(texts) - (not stripped[-1])  # the end after the last newline is not a line
    return Corpus(name=path.name, texts=tuple(texts[:limit]), skipped=0 if limit is not None else blank)


def _read_rows(path: Path, text: str | None, label: str | None, limit: int | None) -> Corpus:
    """Read a table. A tsv often has quotes as plain characters: if they enclose no cell, they are read so."""
    try:
        form = FileFormat.of(str(path))
    except OptionError:
        raise OptionError(
            f"{path} has an unknown format: name it .tsv, .csv, .jsonl, .json (with .gz or .zst if compressed), .parquet, .txt"
        ) from None
    # A corpus may have a header of any kind, and its rows are read as JSON for their labels.
    options = ReadOptions(named=True, target="jsonl")
    try:
        return _read_table(path, form, options, text, label, limit)
    except InputError:
        if form.kind != "tsv":
            raise
    return _read_table(path, form, dataclasses.replace(options, quotes=False), text, label, limit)


def _read_table(
    path: Path, form: FileFormat, options: ReadOptions, text: str | None, label: str | None, limit: int | None
) -> Corpus:
    texts: list[str] = []
    labels: list[Any] = []
    skipped = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(contextlib.closing(InputFile(str(path))))
        source = stack.enter_context(contextlib.closing(open_source(file, form, _WINDOW, options)))
        column = _find(source.columns, text, path, ("text", *sorted(GUESSES)))
        if column is None:
            column = source.columns[0]
        known = _find(source.columns, label, path, () if column == LABEL else (LABEL,))
        for rows in source.chunks(column, None):
            if limit is not None and len(texts) >= limit:
                break
            others = rows.data.members() if known is not None else itertools.repeat("", len(rows.texts))
            for index, (value, members) in enumerate(zip(rows.texts, others, strict=True)):
                if value is None or index in rows.errors:
                    skipped += 1
                    continue
                texts.append(value)
                labels.append(json.loads(f"{{{members}}}").get(known) if known is not None else None)
    return Corpus(
        name=path.name,
        texts=tuple(texts[:limit]),
        labels=None if known is None else tuple(labels[:limit]),
        text_column=column,
        label_column=known,
        skipped=skipped,
    )


def _find(columns: Sequence[str], requested: str | None, path: Path, usual: Sequence[str]) -> str | None:
    """Return the requested column, or the first usual name that is there."""
    if not columns:
        raise InputError(f"{path} has no columns: expected a header, or one JSON object a line")
    if requested is not None:
        return find_named(columns, requested, str(path))
    return next((name for name in usual if name in columns), None)


def gold(values: Sequence[Any] | None, labels: Sequence[str]) -> NDArray[np.int64] | None:
    """Match a file's labels, names in any case or numbers, with the model's.

    Returns:
        The number of each text's label, int64 ``[texts]``; -1 if it is not one of the model's. None if the file has no
        labels, or fewer than half of them are the model's: then the file is labelled for another task.

    Example:
        >>> gold(["1", 0, "positive", "n/a"], ["NEGATIVE", "POSITIVE"]).tolist()
        [1, 0, 1, -1]
    """
    if values is None or not len(values):
        return None
    names = [name.strip().casefold() for name in labels]
    numbers = {name: index for index, name in enumerate(names) if names.count(name) == 1}  # two labels may share a name
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


def length_blocks(texts: Sequence[str], size: int, count: int) -> list[list[int]]:
    """Return the indices of ``count`` blocks, or fewer, of ``size`` texts that are neighbours in length, shorter texts first.

    The blocks are spread evenly. Texts drawn one by one would differ more in length than neighbours in the whole corpus, so
    large batches of them would have more padding.

    Example:
        >>> length_blocks(["ccc", "a", "dddd", "bb"], 2, 9)
        [[1, 3], [0, 2]]
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    blocks = [order[start : start + size] for start in range(0, len(order), size)]
    full = [block for block in blocks if len(block) == size] or blocks  # a short last one is too small to learn from
    count = min(count, len(full))
    return [full[index * len(full) // count] for index in range(count)]


def accuracy(logits: NDArray[np.float32] | None, labels: NDArray[np.int64] | None) -> float | None:
    """Return the share of the labelled texts whose highest logit is that of their label; None without any.

    Example:
        >>> accuracy(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1, -1]))
        0.5
    """
    if logits is None or labels is None or not (labels >= 0).any():
        return None
    known = labels >= 0
    return float((logits.argmax(axis=1) == labels)[known].mean())


def built_in() -> Corpus:
    """Return the texts that the exporter checks graphs with, without the empty one."""
    from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

    return Corpus(name="built-in texts", texts=tuple(text for text in (*CHECK_TEXTS, *ROUNDING_TEXTS) if text.strip()))
