"""Column names: which one holds the texts, and which ones are added; clashes are found before a row is read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import InputError, OptionError
from ..text.labels import distinct
from ..text.outputs import Floats, Function, apply
from .options import Columns

GUESSES = ("text", "sentence", "review", "content", "body", "comment", "message", "document", "tweet")
_MULTI, _REGRESSION = "multi_label_classification", "regression"


def find_text(names: Sequence[str], given: str | None, shown: str) -> str:
    """Return the column of the texts: the one that was named, the only one, or the only one with a usual name.

    Args:
        names: All columns.
        given: What the caller named, or None to guess.
        shown: The input's name, for the messages.

    Raises:
        InputError: There is no such column, or more than one could be meant; the message lists them.
    """
    if given is not None:
        return find_named(names, given, shown)
    if len(names) == 1:
        return names[0]
    found = [name for name in names if name.strip().lower() in GUESSES]
    if len(found) == 1:
        return found[0]
    why = f"{', '.join(map(repr, found))} could each be" if found else "none has a usual name for"
    raise InputError(f"{shown}: {why} the text column: name it with --text-column; {_listed(names)}")


def find_named(names: Sequence[str], given: str, shown: str) -> str:
    """Return a column by its exact name.

    Raises:
        InputError: There is none; the message lists those that there are.
    """
    if given not in names:
        raise InputError(f"{shown} has no column {given!r}; {_listed(names)}")
    return given


def check_names(names: Sequence[str], shown: str) -> None:
    """Refuse columns that share a name: neither a JSON object nor a table can tell them apart.

    Raises:
        InputError: Some do; the message lists them.
    """
    twice = [repr(name) for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{shown} has more than one column named {', '.join(twice)}: rename them; {_listed(names)}")


def check_clash(names: Sequence[str], added: Sequence[str], shown: str) -> None:
    """Refuse an input with a column that is named like one of ours.

    Raises:
        InputError: It has one; the message names the way out.
    """
    clash = [repr(name) for name in added if name in names]
    if clash:
        raise InputError(f"{shown} has a column {', '.join(clash)} already: give --prefix, for names like 'model_label'")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:40]))
    return f"its columns are {shown}{', ...' if len(names) > 40 else ''}" if names else "it has no columns"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """The columns that are added: their names, and how they are made from logits. Picklable.

    A single-label model gives ``label`` and ``score``, the probability of that label. A multi-label model gives lists: the
    labels with p >= 0.5, and their probabilities. A regression gives ``score`` alone, its value (a list where it has
    several). ``truncated`` tells whether the text was cut.

    Attributes:
        labels: The model's labels.
        problem_type: The model's.
        probabilities: Whether to add ``p_<label>`` for each label; of two that share a name the second has its id there.
        prefix: Stands before each name.
        function: What makes scores of logits; None for what the problem type implies.
    """

    labels: tuple[str, ...]
    problem_type: str
    probabilities: bool = False
    prefix: str = ""
    function: str | None = None

    @classmethod
    def of(cls, labels: Sequence[str], problem_type: str, columns: Columns, function: str | None = None) -> Head:
        """Make the columns that a caller asked for.

        Args:
            labels: The model's labels.
            problem_type: The model's.
            columns: What was asked for.
            function: What makes scores of its logits; None for what the problem type implies.

        Raises:
            OptionError: Probabilities were asked of a regression, or of a model whose scores are its logits.
        """
        if columns.probabilities and problem_type == _REGRESSION:
            raise OptionError("this model is a regression and has no probabilities: its value is in score")
        if columns.probabilities and function == Function.NONE:
            raise OptionError("this model gives logits and no probabilities, by its config.json: its logit is in score")
        head = cls(
            labels=tuple(labels),
            problem_type=problem_type,
            probabilities=columns.probabilities,
            prefix=columns.prefix,
            function=function,
        )
        check_names(head.names, "the output")
        return head

    @property
    def _function(self) -> Function:
        return Function.choose(None, self.problem_type, len(self.labels), self.function)

    @property
    def unbounded(self) -> bool:
        """Whether scores are logits or a regression's values, which have no unit: they are written with all their digits."""
        return self._function is Function.NONE

    @property
    def lists(self) -> bool:
        """Whether ``label`` and ``score`` are lists."""
        return self.problem_type == _MULTI or (self.problem_type == _REGRESSION and len(self.labels) > 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added columns, in their order."""
        label = () if self.problem_type == _REGRESSION else ("label",)
        each = tuple(f"p_{name}" for name in distinct(self.labels)) if self.probabilities else ()
        return tuple(self.prefix + name for name in (*label, "score", *each, "truncated"))

    @property
    def types(self) -> tuple[type, ...]:
        """Type of each of ``names``: str, float, list of either, bool."""
        label = () if self.problem_type == _REGRESSION else (str,)
        each = (float,) * len(self.labels) if self.probabilities else ()
        return (*(list if self.lists else kind for kind in (*label, float)), *each, bool)

    def values(self, logits: Floats, truncated: Sequence[bool]) -> list[list[object]]:
        """Return the added columns' values, one list for each of ``names``.

        Args:
            logits: ``[n, labels]``.
            truncated: ``[n]``.
        """
        scores = apply(self._function, logits)  # [n, labels]
        columns: list[list[object]] = []
        if self.problem_type == _REGRESSION:
            columns.append(scores.tolist() if self.lists else scores[:, 0].tolist())
        elif self.problem_type == _MULTI:
            chosen = [np.flatnonzero(row >= 0.5) for row in scores]
            columns.append([[self.labels[i] for i in which] for which in chosen])
            columns.append([row[which].tolist() for row, which in zip(scores, chosen, strict=True)])
        else:
            best = logits.argmax(axis=-1)  # [n]
            columns.append([self.labels[i] for i in best])
            columns.append(scores[np.arange(len(scores)), best].tolist())
        if self.probabilities:
            columns.extend(scores[:, i].tolist() for i in range(len(self.labels)))
        columns.append(list(truncated))
        return columns

    def count(self, columns: Sequence[Sequence[object]]) -> Counter[str]:
        """Count the labels in a window's values; a multi-label row counts for each of its labels."""
        if self.problem_type == _REGRESSION:
            return Counter()
        if self.lists:
            return Counter(label for row in columns[0] if isinstance(row, list) for label in row)
        return Counter(str(label) for label in columns[0] if label is not None)
