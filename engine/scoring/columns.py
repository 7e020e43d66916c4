"""Columns: the choice of the texts' column, and the added ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import InputError, OptionError
from ..text.outputs import Floats, Function, apply, distinct
from .formats.base import AddedColumns, check_names, listed
from .options import Columns

GUESSES = ("text", "sentence", "review", "content", "body", "comment", "message", "document", "tweet")
_MULTI, _REGRESSION = "multi_label_classification", "regression"


def find_text(names: Sequence[str], requested: str | None, source: str) -> str:
    """Return the column of the texts: the requested one, the only one, or the only one with a usual name; else InputError."""
    if requested is not None:
        return find_named(names, requested, source)
    if len(names) == 1:
        return names[0]
    usual = [name for name in names if name.strip().lower() in GUESSES]
    if len(usual) == 1:
        return usual[0]
    why = f"{', '.join(map(repr, usual))} could each be" if usual else "none has a usual name for"
    raise InputError(f"{source}: {why} the text column: name it with --text-column; {listed(names)}")


def find_named(names: Sequence[str], requested: str, source: str) -> str:
    """Return a column by its exact name, or raise InputError."""
    if requested not in names:
        raise InputError(f"{source} has no column {requested!r}; {listed(names)}")
    return requested


def check_clash(names: Sequence[str], added: Sequence[str], source: str) -> None:
    """Raise InputError if the input has an added column's name."""
    clash = [repr(name) for name in added if name in names]
    if clash:
        raise InputError(f"{source} has a column {', '.join(clash)} already: give --prefix, for names like 'model_label'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputColumns:
    """The added columns: their names, and their values from logits. Picklable.

    A single-label model gives ``label`` and ``score``, its probability; a multi-label model lists of the labels with p >= 0.5
    and of their probabilities; a regression only ``score``, its value (a list if it has several).
    """

    labels: tuple[str, ...]
    problem_type: str
    probabilities: bool = False  # whether to add p_<label> for each label
    prefix: str = ""  # of the names
    function: str | None = None  # from logits to scores; None for the problem type's

    @classmethod
    def of(cls, labels: Sequence[str], problem_type: str, columns: Columns, function: str | None = None) -> OutputColumns:
        """Return the columns for a model; OptionError if it has no probabilities to add."""
        probabilities, prefix = columns.probabilities, columns.prefix
        if probabilities and problem_type == _REGRESSION:
            raise OptionError("this model is a regression and has no probabilities: its value is in score")
        if probabilities and function == Function.NONE:
            raise OptionError("this model gives logits and no probabilities, by its config.json: its logit is in score")
        output = cls(
            labels=tuple(labels), problem_type=problem_type, probabilities=probabilities, prefix=prefix, function=function
        )
        check_names(output.names, "the output")
        return output

    @property
    def _function(self) -> Function:
        return Function.choose(None, self.problem_type, len(self.labels), self.function)

    @property
    def unbounded(self) -> bool:
        """True if scores have no unit (logits, a regression's values), and keep all digits."""
        return self._function is Function.NONE

    @property
    def lists(self) -> bool:
        """True if ``label`` and ``score`` are lists."""
        return self.problem_type == _MULTI or (self.problem_type == _REGRESSION and len(self.labels) > 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added columns, in order."""
        return self.added.names

    @property
    def added(self) -> AddedColumns:
        """Names and types for a writer."""
        types = {"score": "float"} if self.problem_type == _REGRESSION else {"label": "str", "score": "float"}
        columns = [(name, f"list[{kind}]" if self.lists else kind) for name, kind in types.items()]
        if self.probabilities:
            columns += [(f"p_{label}", "float") for label in distinct(self.labels)]
        names, kinds = zip(*columns, ("truncated", "bool"), strict=True)
        return AddedColumns(names=tuple(self.prefix + name for name in names), types=kinds, exact=self.unbounded)

    def values(self, logits: Floats, truncated: Sequence[bool]) -> list[list[object]]:
        """Return the values, a list for each of ``names``, from logits ``[n, labels]`` and ``truncated`` ``[n]``."""
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
        """Count the labels in values."""
        if self.problem_type == _REGRESSION:
            return Counter()
        if self.lists:
            return Counter(label for row in columns[0] if isinstance(row, list) for label in row)
        return Counter(str(label) for label in columns[0] if label is not None)
