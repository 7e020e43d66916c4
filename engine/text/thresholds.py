"""Thresholds of a multi-label model: the least probability at which each label counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import OptionError, shown
from .outputs import distinct

# One for all labels, one for each in their order, or by name; the name None stands for the labels that are left out.
Threshold: TypeAlias = "float | Sequence[float] | Mapping[str, float] | Mapping[str | None, float]"

MULTI_LABEL = "multi_label_classification"
_DEFAULT = 0.5
_SHOWN = 10  # labels in a message


def parse_thresholds(
    value: Threshold | None, labels: Sequence[str], problem_type: str, stored: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return the threshold of each label; ``stored`` has the artifact's, for None and for names that are left out.

    Raises:
        OptionError: The model is not multi-label, or ``value`` does not fit its labels or is not a probability.

    Example:
        >>> parse_thresholds({"anger": 0.7}, ("joy", "anger"), "multi_label_classification")
        (0.5, 0.7)
    """
    if problem_type != MULTI_LABEL:
        raise OptionError(f"threshold is for multi-label models, and this one is a {problem_type}: leave it out")
    base = tuple(stored or (_DEFAULT,) * len(labels))
    if value is None:
        return base
    if isinstance(value, Mapping):
        return _by_name(value, labels, base)
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) == 1:
        if len(value) != len(labels):
            expected = f"expected one for each of {len(labels)} labels, {_list(labels)}"
            raise OptionError(f"threshold has {len(value)} numbers, {expected}: give a dict to name only some")
        return tuple(_check(each, label) for each, label in zip(value, labels, strict=True))
    return (_check(value),) * len(labels)


def is_number(value: object) -> bool:
    """Return whether a threshold is one number, also one of NumPy; True and False are none."""
    value = value.item() if isinstance(value, np.generic) else value
    return isinstance(value, int | float) and not isinstance(value, bool)


def threshold_option(values: Sequence[str]) -> float | dict[str | None, float] | None:
    """Read the values of a command's ``--threshold``: a number for all labels, ``LABEL=NUMBER`` for one; None without any.

    Raises:
        OptionError: A value is neither, or two are for the same label.

    Example:
        >>> threshold_option(["0.3", "anger=0.6"])
        {None: 0.3, 'anger': 0.6}
    """
    thresholds: dict[str | None, float] = {}
    for value in values:
        name, equals, number = value.rpartition("=")
        label = name if equals else None
        try:
            threshold = float(number)
        except ValueError:
            raise OptionError(f"--threshold is {shown(value)}: give a number from 0 to 1, or LABEL=NUMBER") from None
        if label in thresholds:
            raise OptionError(f"--threshold is given twice for {'all labels' if label is None else repr(label)}: give it once")
        thresholds[label] = _check(threshold, label)
    return thresholds[None] if thresholds.keys() == {None} else thresholds or None  # several heads take only a number


def _by_name(value: Mapping[Any, Any], labels: Sequence[str], base: Sequence[float]) -> tuple[float, ...]:
    names = distinct(labels)  # a label whose name another has too can be given by its distinct name
    unknown = next((name for name in value if name is not None and name not in names), None)
    if unknown is not None:
        raise OptionError(f"threshold names the label {shown(unknown)}, which the model lacks: its labels are {_list(names)}")
    checked = {name: _check(each, name) for name, each in value.items()}
    found = []
    for name, label, default in zip(names, labels, base, strict=True):
        found.append(checked.get(name, checked.get(label, checked.get(None, default))))
    return tuple(found)


def _check(value: Any, label: str | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
        place = "threshold" if label is None else f"the threshold of label {label!r}"
        raise OptionError(
            f"{place} is {shown(value)}: give a number from 0 to 1, a list of one for each label, or a dict of them"
        )
    return float(value)


def _list(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
