"""Logits to scores, and scores to what transformers' text classification pipeline returns."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import OptionError

Floats: TypeAlias = NDArray[np.float32]
Scored: TypeAlias = "dict[str, Any]"  # {"label": str, "score": float}


class Function(enum.StrEnum):
    """What turns logits into scores."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"

    @classmethod
    def choose(cls, given: Any, problem_type: str, labels: int) -> Function:
        """Return the function that was asked for, or the one that fits the model.

        Args:
            given: ``sigmoid``, ``softmax``, ``none`` in any case, or None for the model's own.
            problem_type: The manifest's.
            labels: Number of labels.

        Raises:
            OptionError: ``given`` is none of them.
        """
        if given is not None:
            try:
                return cls(given.lower() if isinstance(given, str) else given)
            except ValueError:
                raise OptionError(f"function_to_apply is {given!r}: give one of {', '.join(cls)}, or None") from None
        if problem_type == "regression":
            return cls.NONE
        return cls.SIGMOID if problem_type == "multi_label_classification" or labels == 1 else cls.SOFTMAX


class Default(enum.Enum):
    """Marks an argument that was not given, where None has a meaning of its own."""

    UNSET = enum.auto()


UNSET: Final = Default.UNSET


def apply(function: Function, logits: Floats) -> Floats:
    """Turn logits into scores without overflow, in float32.

    Args:
        function: Which.
        logits: ``[n, labels]``.

    Returns:
        Scores ``[n, labels]``.
    """
    if function is Function.NONE:
        return logits
    if function is Function.SIGMOID:
        # exp of a negative number alone: 1 / (1 + exp(-x)) for x >= 0, exp(x) / (1 + exp(x)) else
        small = np.exp(-np.abs(logits))  # [n, labels]
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32, copy=False)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))  # [n, labels]
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def check_top_k(top_k: object) -> int | Default | None:
    """Check the number of labels to return; None means all.

    Raises:
        OptionError: It is no positive integer.
    """
    if top_k is UNSET or top_k is None:
        return top_k
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise OptionError(f"top_k is {top_k!r}: give an integer from 1 up, or None for all labels")
    return int(top_k)


def scored(scores: Floats, labels: Sequence[str], top_k: int | Default | None) -> Scored | list[Scored]:
    """Return one text's result: the best label alone where ``top_k`` was not given, else a list from the best down.

    Args:
        scores: ``[labels]``.
        labels: Their names.
        top_k: Labels to return, None for all, UNSET for the best one outside a list.
    """
    if top_k is UNSET:
        best = int(scores.argmax())
        return {"label": labels[best], "score": float(scores[best])}
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores in the order of the labels
    return [{"label": labels[index], "score": float(scores[index])} for index in order]
