"""``Scorer``: a batch of columns in, the same columns with labels and scores out."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, OptionError, check_member
from ..model import Model
from ..tasks.hypotheses import Hypotheses
from ..text.inputs import Window
from ..text.thresholds import Threshold
from .columns import check_clash, find_named, find_text
from .formats.base import RowError, Rows, check_texts
from .formats.csv import CsvData
from .heads import output_columns
from .options import Columns, ModelOptions, OnError
from .pipeline import as_asked, load_model, run, spread, tokenize

_BATCH = "the batch"


class Scorer:
    """A picklable, thread-safe callable that adds ``label``, ``score`` and ``truncated`` to a batch of columns.

    A token classifier adds ``entities`` in place of the first two.

    Each process loads the model once, at the first call; a pickle holds only the options. With Ray Data:
    ``dataset.map_batches(Scorer, fn_constructor_kwargs={"model": ...}, concurrency=2)``.

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
        function_to_apply: str | None = None,
        threshold: Threshold | None = None,
        top_k: int | None = None,
        candidate_labels: str | Iterable[str] | None = None,
        hypothesis_template: str | None = None,
        multi_label: bool = False,
        aggregation_strategy: str | None = None,
        on_error: str = "fail",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_length: int | None = None,
        long_text: str | Window = "truncate",
        split_special_tokens: bool | None = None,
    ) -> None:
        """Keep the options, as in ``score_file``; ``on_error`` without ``skip``."""
        self._columns = Columns(
            text=text_column,
            pair=pair_column,
            probabilities=probabilities,
            prefix=prefix,
            function_to_apply=function_to_apply,
            threshold=threshold,
            top_k=top_k,
            hypotheses=Hypotheses.option(candidate_labels, hypothesis_template, multi_label),
            aggregation_strategy=aggregation_strategy,
        )
        self._on_error = check_member(OnError, "on_error", on_error)
        if self._on_error is OnError.SKIP:
            raise OptionError("on_error is 'skip', but a Scorer keeps every row: give fail or null, and drop rows afterwards")
        self._options = ModelOptions(
            model=model,
            device=device,
            precision=precision,
            threads=threads,
            max_length=max_length,
            long_text=long_text,
            split_special_tokens=split_special_tokens,
        )
        self._model: Model | None = None
        self._lock = threading.Lock()

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Score a batch.

        Args:
            batch: Columns of equal length by name: lists, or NumPy arrays.

        Returns:
            The same columns and the added ones as NumPy arrays; a row that cannot be scored has label None and score NaN.

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
        model = self._load()
        output = output_columns(model.source.manifest, self._columns)
        check_clash(names, output.names, _BATCH)
        rows = _rows(batch, text, pair)
        self._check(rows)
        scored = as_asked(model, self._columns)
        tokenized = tokenize(scored, rows)
        self._check(rows)  # texts that are too long are known only now
        columns = output.values(run(scored, tokenized), tokenized.tokens.truncated())
        values = spread(columns, tokenized.places)
        return {**batch, **dict(zip(output.names, map(_array, values, output.added.types), strict=True))}

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self._columns, "_on_error": self._on_error, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _model=None, _lock=threading.Lock())

    def _load(self) -> Model:
        with self._lock:
            if self._model is None:
                self._model = load_model(self._options)
            return self._model

    def _check(self, rows: Rows) -> None:
        if rows.errors and self._on_error is OnError.FAIL:
            row = min(rows.errors)
            reason = rows.errors[row].reason
            raise InputError(f"row {row} of the batch cannot be scored: {reason}; on_error='null' keeps such rows")


def _rows(batch: Mapping[str, Sequence[Any]], text: str, pair: str | None) -> Rows:
    count, others = len(batch[text]), len(batch[pair or text])
    if count != others:
        raise InputError(f"{text!r} has {count} rows and {pair!r} {others}: a batch's columns are of one length")
    errors: dict[int, RowError] = {}
    texts = check_texts(_values(batch[text]), text, errors)
    pairs = None if pair is None else check_texts(_values(batch[pair]), pair, errors, optional=True)
    return Rows(first=0, data=CsvData((), []), texts=texts, pairs=pairs, errors=errors, size=0, done=None)


def _values(column: Sequence[Any]) -> Iterator[Any]:
    """Yield values: NumPy's strings as Python's, and NaN, the null of pandas, as None."""
    for value in column:
        is_null = isinstance(value, float) and math.isnan(value)
        yield str(value) if isinstance(value, str) else None if is_null else value


def _array(column: list[Any], kind: str) -> Any:
    """Return a column as float32, bool, or objects (labels and lists)."""
    if kind == "float":
        return np.array([math.nan if value is None else value for value in column], dtype=np.float32)
    if kind == "bool":
        return np.array([bool(value) for value in column], dtype=bool)
    array = np.empty(len(column), dtype=object)
    array[:] = column
    return array
