"""Labels and scores: their entries in a config, scores from logits, results in the form of transformers' pipeline."""

from __future__ import annotations

import dataclasses
import enum
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import FusedBertError, OptionError, shown
from .inputs import AS_LOADED, Cut

Floats: TypeAlias = NDArray[np.float32]
_Float = TypeVar("_Float", bound=np.floating[Any])
Scored: TypeAlias = "dict[str, Any]"  # {"label": str, "score": float}


class Function(enum.StrEnum):
    """A function from logits to scores."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"

    @classmethod
    def choose(cls, name: Any, problem_type: str, labels: int, stated: str | None = None) -> Function:
        """Return the function of a name in any case; for None the one that the manifest stated, or its problem type implies.

        Raises:
            OptionError: The name is unknown.
        """
        if name is not None:
            try:
                return cls(name.lower() if isinstance(name, str) else name)
            except ValueError:
                raise OptionError(f"function_to_apply is {shown(name)}: give one of {', '.join(cls)}, or None") from None
        if stated is not None:
            return cls(stated)
        if problem_type == "regression":
            return cls.NONE
        return cls.SIGMOID if problem_type == "multi_label_classification" or labels == 1 else cls.SOFTMAX


# Control characters, lone surrogates, and line and paragraph separators: a name must fit in one line.
_UNFIT = {"Cc", "Cs", "Zl", "Zp"}


def names_by_id(id2label: Any) -> dict[int, str]:
    """Return the names in a config's ``id2label``, which may be None and may lack ids.

    Raises:
        ValueError: It does not map numbers from 0 up to names of one line; the message says what was found.

    Example:
        >>> names_by_id({"0": "NEGATIVE", "1": "POSITIVE"})
        {0: 'NEGATIVE', 1: 'POSITIVE'}
    """
    try:
        names = {int(key): name for key, name in ({} if id2label is None else id2label).items()}
    except (AttributeError, ValueError, TypeError):
        raise ValueError(f"id2label = {shown(id2label)}, expected numbers and names") from None
    for i, name in names.items():
        if i < 0:
            raise ValueError(f"id2label with the id {i}, expected ids from 0 up")
        if isinstance(name, (dict, list)) or name is None:
            raise ValueError(f"id2label with {shown(name)} for {i}, expected a name")
        if any(unicodedata.category(character) in _UNFIT for character in str(name)):
            raise ValueError(f"id2label with {shown(name)} for {i}, expected a name of one line, without control characters")
    return {i: str(name) for i, name in names.items()}


# Activations of sentence-transformers' rerankers.
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": Function.NONE,
    "torch.nn.Identity": Function.NONE,
    "torch.nn.modules.activation.Sigmoid": Function.SIGMOID,
    "torch.nn.Sigmoid": Function.SIGMOID,
}
_SOFTMAX = {"torch.nn.modules.activation.Softmax": Function.SOFTMAX, "torch.nn.Softmax": Function.SOFTMAX}  # of several labels
ACTIVATION_KEYS = _NESTED, _OLD = "sentence_transformers", "sbert_ce_default_activation_function"  # in config.json


def stated_function(config: Mapping[str, Any], problem_type: str, labels: int, refusal: type[FusedBertError]) -> str | None:
    """Return the score function that ``config.json`` names, or None if the problem type implies it.

    A reranker of sentence-transformers names its activation: ``Identity``, which gives ``none`` here, if it returns logits.
    The entry counts only for models with one label that are not regressions.

    Raises:
        FusedBertError: Of class ``refusal``: the activation is not supported.

    Example:
        >>> config = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
        >>> stated_function(config, "single_label_classification", 1, OptionError)
        'none'
    """
    if problem_type == "regression" or labels != 1:
        return None
    function = stated_activation(config, labels, refusal)
    return None if function is Function.SIGMOID or function is None else str(function)


def stated_activation(config: Mapping[str, Any], labels: int, refusal: type[FusedBertError]) -> Function | None:
    """Return the activation that ``config.json`` names, also of several labels, or None, as ``stated_function``."""
    nested = config.get(_NESTED)
    if nested is not None and not isinstance(nested, Mapping):
        raise refusal(f"config.json has {_NESTED} = {shown(nested)}, expected an object: mend config.json")
    key, name = _OLD, config.get(_OLD)
    if nested is not None and "activation_fn" in nested:  # the newer key wins
        key, name = f"{_NESTED}.activation_fn", nested["activation_fn"]
    if name is None:
        return None
    known = _ACTIVATIONS if labels == 1 else _ACTIVATIONS | _SOFTMAX
    function = known.get(name) if isinstance(name, str) else None
    if function is None:
        way_out = f"take the one that fits, or leave the key out for {'the sigmoid' if labels == 1 else 'logits'}"
        if refusal is OptionError:  # of a call, whose artifact stays as it is
            way_out = f"give function_to_apply=, one of {', '.join(Function)}"
        raise refusal(f"config.json has {key} = {shown(name)}, expected one of {', '.join(known)}: {way_out}")
    return function


def activation(module: object) -> Function:
    """Return the function that a module of torch stands for; OptionError if it is not its Identity or Sigmoid."""
    kind = module if isinstance(module, type) else type(module)
    function = _ACTIVATIONS.get(f"{kind.__module__}.{kind.__qualname__}")
    if function is None:
        raise OptionError(f"activation_fn is {shown(module)}: give function_to_apply, one of {', '.join(Function)}")
    return function


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return distinct label names, for outputs that are keyed by name; a model may have two labels of one name.

    Example:
        >>> distinct(["other", "spam", "other"])
        ('other', 'spam', 'other (2)')
    """
    taken = set(labels)
    names: list[str] = []
    for i, label in enumerate(labels):
        name = label
        while name in names or (name != label and name in taken):
            name = f"{name} ({i})"
        names.append(name)
    return tuple(names)


class Default(enum.Enum):
    """Marker of an argument that was not passed."""

    UNSET = enum.auto()


UNSET: Final = Default.UNSET


def apply(function: Function, logits: NDArray[_Float]) -> NDArray[_Float]:
    """Return the scores ``[n, labels]`` of logits ``[n, labels]``, without overflow, in the type of the logits."""
    if function is Function.NONE:
        return logits
    if function is Function.SIGMOID:
        # exp only of negative numbers: 1 / (1 + exp(-x)) for x >= 0, exp(x) / (1 + exp(x)) else
        small = np.exp(-np.abs(logits))  # [n, labels]
        return np.asarray(np.where(logits >= 0, 1 / (1 + small), small / (1 + small)))
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))  # [n, labels]
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def check_top_k(top_k: object) -> int | Default | None:
    """Check the number of labels to return; None means all.

    Raises:
        OptionError: It is not a positive integer.
    """
    if top_k is UNSET or top_k is None:
        return top_k
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise OptionError(f"top_k is {shown(top_k)}: give an integer from 1 up, or None for all labels")
    return int(top_k)


def scored(scores: Floats, labels: Sequence[str], top_k: int | Default | None) -> Scored | list[Scored]:
    """Return a text's ``top_k`` best labels by its scores ``[labels]``: None for all, UNSET for the best one without a list."""
    if top_k is UNSET:
        best = int(scores.argmax())
        return {"label": labels[best], "score": float(scores[best])}
    order = np.argsort(-scores, kind="stable")[:top_k]  # equal scores in the order of the labels
    return [{"label": labels[index], "score": float(scores[index])} for index in order]


def passing(logits: Floats, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Return which labels of a multi-label model count, ``[n, labels]``: those whose probability reaches its threshold."""
    return np.asarray(apply(Function.SIGMOID, logits) >= np.asarray(thresholds, dtype=np.float64))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """The checked options of a call."""

    function: Function
    top_k: int | Default | None = UNSET
    thresholds: tuple[float, ...] | None = None  # of each label; None to give labels whatever their probability
    cut: Cut = AS_LOADED

    @property
    def best_only(self) -> bool:
        """True if a result is the best label, without a list."""
        return self.top_k is UNSET and self.thresholds is None

    def results(self, logits: Floats, labels: tuple[str, ...]) -> list[Scored | list[Scored]]:
        """Return the result of each text from its logits ``[n, labels]``."""
        scores = apply(self.function, logits)  # [n, labels]
        if self.thresholds is None:
            return [scored(row, labels, self.top_k) for row in scores]
        top_k = None if self.top_k is UNSET else self.top_k
        kept = map(np.flatnonzero, passing(logits, self.thresholds))
        return [scored(row[i], [labels[j] for j in i], top_k) for row, i in zip(scores, kept, strict=True)]
