"""Columns: the choice of the texts' column, and the added ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, OptionError
from ..tasks.hypotheses import Entailment
from ..tasks.tokens.call import Tagging, check_strategy
from ..tasks.tokens.entities import Entity, Strategy
from ..text.outputs import Floats, Function, apply, distinct
from ..text.thresholds import parse_thresholds
from .formats.base import GUESSES, AddedColumns, check_names, listed
from .options import Columns

MULTI, REGRESSION = "multi_label_classification", "regression"


def find_text(names: Sequence[str], requested: str | None, source: str, hint: str = "") -> str:
    """Return the column of the texts: the requested one, the only one, or the only one with a usual name.

    Raises:
        InputError: There is none; the message ends with ``hint``.
    """
    if requested is not None:
        return find_named(names, requested, source, hint)
    if len(names) == 1:
        return names[0]
    usual = [name for name in names if name.strip().lower() in GUESSES]
    if len(usual) == 1:
        return usual[0]
    why = f"{', '.join(map(repr, usual))} could each be" if usual else "none has a usual name for"
    raise InputError(f"{source}: {why} the text column: name it with --text-column; {listed(names)}{hint and f'; {hint}'}")


def find_named(names: Sequence[str], requested: str, source: str, hint: str = "") -> str:
    """Return a column by its exact name, or raise InputError."""
    if requested not in names:
        raise InputError(f"{source} has no column {requested!r}; {listed(names)}{hint and f'; {hint}'}")
    return requested


def check_clash(names: Sequence[str], added: Sequence[str], source: str) -> None:
    """Raise InputError if the input has an added column's name."""
    clash = [repr(name) for name in added if name in names]
    if clash:
        raise InputError(f"{source} has a column {', '.join(clash)} already: give --prefix, for names like 'model_label'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntityColumns:
    """The added columns of a token classifier: ``entities``, a list of objects, and ``truncated``. Picklable."""

    tagging: Tagging
    prefix: str = ""  # of the names

    @classmethod
    def of(cls, columns: Columns) -> EntityColumns:
        """Return the columns; raise ``OptionError`` for options of a classifier of texts."""
        given = {
            "pair_column": columns.pair is not None,
            "probabilities": columns.probabilities,
            "function_to_apply": columns.function_to_apply is not None,
            "threshold": columns.threshold is not None,
            "top_k": columns.top_k is not None,
            "candidate_labels": columns.hypotheses is not None,
        }
        for name in (name for name, is_set in given.items() if is_set):
            raise OptionError(f"{name} is for a classifier of texts, and this model labels tokens: leave it out")
        strategy = columns.aggregation_strategy
        return cls(tagging=Tagging(strategy=check_strategy(strategy or Strategy.SIMPLE)), prefix=columns.prefix)

    @property
    def identity(self) -> dict[str, object]:
        """Options that the values depend on, for the journal."""
        return {"aggregation_strategy": str(self.tagging.strategy)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added columns, in order."""
        return self.added.names

    @property
    def added(self) -> AddedColumns:
        """Names and types for a writer."""
        kind = "list[token]" if self.tagging.strategy is Strategy.NONE else "list[entity]"
        return AddedColumns(names=(f"{self.prefix}entities", f"{self.prefix}truncated"), types=(kind, "bool"))

    def values(self, entities: Sequence[Sequence[Entity]], truncated: Sequence[bool]) -> list[list[object]]:
        """Return the values, a list for each of ``names``, from the entities of each text and ``truncated`` ``[n]``."""
        return [list(entities), list(truncated)]

    def count(self, columns: Sequence[Sequence[object]]) -> Counter[str]:
        """Count the labels in values."""
        key = "entity" if self.tagging.strategy is Strategy.NONE else "entity_group"
        return Counter(entity[key] for row in columns[0] if isinstance(row, list) for entity in row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputColumns:
    """The added columns: their names, and their values from logits. Picklable.

    A single-label model gives ``label`` and ``score``, its probability; a multi-label model lists of the labels whose
    probability is at least their threshold, and of their scores; with ``top_k`` both give lists, the best label first. A
    regression gives only ``score``, its value (a list if it has several).
    """

    labels: tuple[str, ...]
    problem_type: str
    function: Function  # from logits to scores
    thresholds: tuple[float, ...] | None = None  # least probability of each label; None if all count
    top_k: int | None = None  # number of the best labels to give
    all_scores: str | None = None  # ``p_`` or ``logit_``, to add a column for each label
    prefix: str = ""  # of the names

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        problem_type: str,
        columns: Columns,
        stated: str | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> OutputColumns:
        """Return the columns for a model; ``stated`` is its function, and ``thresholds`` its own ones.

        Raises:
            OptionError: The model has no probabilities to add, no labels to choose from, or an option is not valid.
        """
        if columns.hypotheses is not None:
            Entailment.of(labels, problem_type).warn()
            labels, problem_type = columns.hypotheses.labels, columns.hypotheses.problem_type
            stated = thresholds = None
        multi, requested = problem_type == MULTI, columns.function_to_apply
        if columns.probabilities and problem_type == REGRESSION:
            raise OptionError("this model is a regression and has no probabilities: its value is in score")
        if columns.top_k is not None and problem_type == REGRESSION:
            raise OptionError("this model is a regression and has no labels for top_k: its value is in score")
        function = Function.choose(requested, problem_type, len(labels), stated)
        if columns.probabilities and function is Function.NONE and requested is None:
            raise OptionError("this model gives logits and no probabilities, by its config.json: its logit is in score")
        chosen = None
        if columns.threshold is not None or (multi and columns.top_k is None):
            chosen = parse_thresholds(columns.threshold, labels, problem_type, thresholds)
        output = cls(
            labels=tuple(labels),
            problem_type=problem_type,
            function=function,
            thresholds=chosen,
            top_k=columns.top_k,
            all_scores=("logit_" if function is Function.NONE else "p_") if columns.probabilities else None,
            prefix=columns.prefix,
        )
        check_names(output.names, "the output")
        return output

    @property
    def identity(self) -> dict[str, object]:
        """Options that the values depend on, for the journal."""
        thresholds = None if self.thresholds is None else list(self.thresholds)
        return {"function": str(self.function), "thresholds": thresholds, "top_k": self.top_k}

    @property
    def unbounded(self) -> bool:
        """True if scores have no unit (logits, a regression's values), and keep all digits."""
        return self.function is Function.NONE

    @property
    def lists(self) -> bool:
        """True if ``label`` and ``score`` are lists."""
        several = self.problem_type == REGRESSION and len(self.labels) > 1
        return several or self.problem_type == MULTI or self.top_k is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added columns, in order."""
        return self.added.names

    @property
    def added(self) -> AddedColumns:
        """Names and types for a writer."""
        types = {"score": "float"} if self.problem_type == REGRESSION else {"label": "str", "score": "float"}
        columns = [(name, f"list[{kind}]" if self.lists else kind) for name, kind in types.items()]
        if self.all_scores is not None:
            columns += [(f"{self.all_scores}{label}", "float") for label in distinct(self.labels)]
        names, kinds = zip(*columns, ("truncated", "bool"), strict=True)
        return AddedColumns(names=tuple(self.prefix + name for name in names), types=kinds, exact=self.unbounded)

    def values(self, logits: Floats, truncated: Sequence[bool]) -> list[list[object]]:
        """Return the values, a list for each of ``names``, from logits ``[n, labels]`` and ``truncated`` ``[n]``."""
        scores = apply(self.function, logits)  # [n, labels]
        columns: list[list[object]] = []
        if self.problem_type == REGRESSION:
            columns.append(scores.tolist() if self.lists else scores[:, 0].tolist())
        elif self.lists:
            chosen = self._chosen(logits)
            columns.append([[self.labels[i] for i in which] for which in chosen])
            columns.append([row[which].tolist() for row, which in zip(scores, chosen, strict=True)])
        else:
            best = logits.argmax(axis=-1)  # [n]
            columns.append([self.labels[i] for i in best])
            columns.append(scores[np.arange(len(scores)), best].tolist())
        if self.all_scores is not None:
            columns.extend(scores[:, i].tolist() for i in range(len(self.labels)))
        columns.append(list(truncated))
        return columns

    def _chosen(self, logits: Floats) -> list[NDArray[np.intp]]:
        """Return the labels that each text of logits ``[n, labels]`` gets: the best first if there is a ``top_k``."""
        counts = np.ones(logits.shape, dtype=bool)  # [n, labels]
        if self.thresholds is not None:
            counts = apply(Function.SIGMOID, logits) >= np.asarray(self.thresholds)
        if self.top_k is None:
            return [np.flatnonzero(row) for row in counts]
        order = np.argsort(-logits, axis=-1, kind="stable")[:, : self.top_k]  # [n, top_k]
        return [best[row[best]] for best, row in zip(order, counts, strict=True)]

    def count(self, columns: Sequence[Sequence[object]]) -> Counter[str]:
        """Count the labels in values."""
        if self.problem_type == REGRESSION:
            return Counter()
        if self.lists:
            return Counter(label for row in columns[0] if isinstance(row, list) for label in row)
        return Counter(str(label) for label in columns[0] if label is not None)
