"""Logits to scores, and scores to what transformers' text classification pipeline returns."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..artifact import Manifest
from ..errors import FusedBertError, OptionError

Floats: TypeAlias = NDArray[np.float32]
Scored: TypeAlias = "dict[str, Any]"  # {"label": str, "score": float}


class Function(enum.StrEnum):
    """What turns logits into scores."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"

    @classmethod
    def of(cls, manifest: Manifest) -> Function:
        """Return a model's own function."""
        return cls.choose(None, manifest.problem_type, len(manifest.labels), manifest.function_to_apply)

    @classmethod
    def choose(cls, given: Any, problem_type: str, labels: int, stated: str | None = None) -> Function:
        """Return the function that was asked for, or the model's own.

        Args:
            given: ``sigmoid``, ``softmax``, ``none`` in any case, or None for the model's own.
            problem_type: The manifest's.
            labels: Number of labels.
            stated: What the manifest says of it; None where the problem type implies it.

        Raises:
            OptionError: ``given`` is none of them.
        """
        if given is not None:
            try:
                return cls(given.lower() if isinstance(given, str) else given)
            except ValueError:
                raise OptionError(f"function_to_apply is {given!r}: give one of {', '.join(cls)}, or None") from None
        if stated is not None:
            return cls(stated)
        if problem_type == "regression":
            return cls.NONE
        return cls.SIGMOID if problem_type == "multi_label_classification" or labels == 1 else cls.SOFTMAX


# What sentence-transformers writes for its rerankers, under either name of torch's.
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": Function.NONE,
    "torch.nn.Identity": Function.NONE,
    "torch.nn.modules.activation.Sigmoid": Function.SIGMOID,
    "torch.nn.Sigmoid": Function.SIGMOID,
}
_NESTED, _OLD = "sentence_transformers", "sbert_ce_default_activation_function"


def stated_function(config: Mapping[str, Any], problem_type: str, labels: int, refusal: type[FusedBertError]) -> str | None:
    """Return what a checkpoint's ``config.json`` says of its scores, where that differs from what its problem type implies.

    A reranker of sentence-transformers names its activation there: ``Identity`` for one that gives its logits. That counts
    for a model with one label that is no regression; several labels keep the softmax or the sigmoids of transformers' pipeline.

    Args:
        config: The content of ``config.json``.
        problem_type: What it says the outputs mean.
        labels: Number of labels.
        refusal: What to raise.

    Returns:
        ``none``, or None where nothing is said, or what is the default anyway.

    Raises:
        FusedBertError: ``refusal``, where the activation is another one.

    Example:
        >>> config = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
        >>> stated_function(config, "single_label_classification", 1, OptionError)
        'none'
    """
    if problem_type == "regression" or labels != 1:
        return None
    nested = config.get(_NESTED)
    if nested is not None and not isinstance(nested, Mapping):
        raise refusal(f"config.json has {_NESTED} = {nested!r}, expected an object: mend config.json")
    if nested is not None and "activation_fn" in nested:  # the newer key wins
        key, name = f"{_NESTED}.activation_fn", nested["activation_fn"]
    else:
        key, name = _OLD, config.get(_OLD)
    if name is None:
        return None
    function = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if function is None:
        raise refusal(
            f"config.json has {key} = {name!r}, understood are {', '.join(_ACTIVATIONS)}: take the one that fits, or leave "
            "the key out for the sigmoid"
        )
    return None if function is Function.SIGMOID else str(function)


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
