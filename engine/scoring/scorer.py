"""``Scorer``: from a batch of columns to the same columns with labels and scores, for a data framework to call."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..classifier import Classifier
from ..errors import InputError, OptionError
from ..options import Window
from .columns import Head, check_clash, find_named, find_text
from .model import load
from .options import Columns, Engine, OnError, member
from .rows import TextRows
from .windows import Fault, Raw, found_in
from .work import encode, run, spread

_BATCH = "the batch"


class Scorer:
    """A picklable callable that adds ``label``, ``score`` and ``truncated`` to a batch of columns.

    The model is loaded at the first call, once in each process; a pickle holds the options alone. Safe to call from many
    threads. With Ray Data: ``dataset.map_batches(Scorer, fn_constructor_kwargs={"model": ...}, concurrency=2)``.

    Example:
        >>> scorer = Scorer(text_column="review")
        >>> scorer({"id": [1, 2], "review": ["fine", "awful"]})["label"]
        array(['POSITIVE', 'NEGATIVE'], dtype=object)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        text_column: str | None = None,
        pair_column: str | None = None,
        probabilities: bool = False,
        prefix: str = "",
        on_error: str = "fail",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        long_text: str | Window = "truncate",
    ) -> None:
        """Keep the options; they are those of ``score_file``, ``on_error`` without ``skip``."""
        self._columns = Columns(text=text_column, pair=pair_column, probabilities=probabilities, prefix=prefix)
        self._on_error = member(OnError, "on_error", on_error)
        if self._on_error is OnError.SKIP:
            raise OptionError("on_error is 'skip', and a Scorer keeps every row: give fail or null, and drop rows afterwards")
        self._engine = Engine(model=model, device=device, precision=precision, threads=threads, long_text=long_text)
        self._classifier: Classifier | None = None
        self._lock = threading.Lock()

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Score a batch.

        Args:
            batch: Columns of equal length by name: lists, or NumPy arrays.

        Returns:
            The same columns and the added ones, these as NumPy arrays; a row that cannot be scored has the label None, the
            score NaN, and is not truncated.

        Raises:
            InputError: A column is missing, or a text is null and ``on_error`` is ``fail``.
        """
        if not isinstance(batch, Mapping):
            raise InputError(
                f"a batch is a mapping of columns by name, found {type(batch).__name__}: for parquet use score_file"
            )
        names = list(batch)
        pair = None if self._columns.pair is None else find_named(names, self._columns.pair, _BATCH)
        text = find_text([name for name in names if name != pair], self._columns.text, _BATCH)
        classifier = self._load()
        head = Head.of(classifier.classes_, classifier.problem_type, self._columns, classifier.function_to_apply)
        check_clash(names, head.names, _BATCH)
        raw = self._window(batch[text], None if pair is None else batch[pair], text, pair)
        encoded = encode(classifier, raw)
        self._check(raw)  # a text that is too long shows only now
        ran = run(classifier, encoded)
        columns = head.values(ran.logits, encoded.tokens.truncated())
        values = spread(columns, ran.encoded.places)
        return {**batch, **dict(zip(head.names, map(_array, values, head.types), strict=True))}

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self._columns, "_on_error": self._on_error, "_engine": self._engine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _classifier=None, _lock=threading.Lock())

    def _load(self) -> Classifier:
        with self._lock:
            if self._classifier is None:
                self._classifier = load(self._engine)
            return self._classifier

    def _window(self, texts: Sequence[Any], pairs: Sequence[Any] | None, text: str, pair: str | None) -> Raw:
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"{text!r} has {len(texts)} rows and {pair!r} {len(pairs)}: a batch's columns are of one length")
        faults: dict[int, Fault] = {}
        checked = _texts(texts, text, faults)
        others = None if pairs is None or pair is None else _texts(pairs, pair, faults)
        raw = Raw(first=0, rows=TextRows((), []), texts=checked, pairs=others, faults=faults, size=0, done=None)
        self._check(raw)
        return raw

    def _check(self, raw: Raw) -> None:
        if raw.faults and self._on_error is OnError.FAIL:
            row = min(raw.faults)
            reason = raw.faults[row].reason
            raise InputError(f"row {row} of the batch cannot be scored: {reason}; on_error='null' keeps such rows")


def _texts(values: Sequence[Any], name: str, faults: dict[int, Fault]) -> list[str | None]:
    """Take a column's texts, noting what is none; NaN is what pandas has for null."""
    texts: list[str | None] = []
    for index, value in enumerate(values):
        if isinstance(value, str):
            texts.append(str(value))
            continue
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            faults[index] = Fault(reason=f"{name!r} is of type {type(value).__name__}, expected a string")
        texts.append(None)
    return found_in(texts, name, faults)


def _array(column: list[Any], kind: type) -> Any:
    """Return a column as an array: float32, bool, or objects for labels and lists."""
    if kind is float:
        return np.array([math.nan if value is None else value for value in column], dtype=np.float32)
    if kind is bool:
        return np.array([bool(value) for value in column], dtype=bool)
    array = np.empty(len(column), dtype=object)
    array[:] = column
    return array
