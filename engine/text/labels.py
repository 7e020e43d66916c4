"""Names of labels: what ``id2label`` may hold, and names of their own where two labels share one.

transformers takes two labels of one name, and so do we: a list of answers can hold both. An object or a table's columns
cannot; there, and there alone, the second becomes ``NAME (1)``, with its id.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

# Control characters, lone surrogates, and the two that end a line or a paragraph: a name is to stay in its line.
_UNFIT = {"Cc", "Cs", "Zl", "Zp"}


def names_by_id(id2label: Any) -> dict[int, str]:
    """Read the ``id2label`` of a config.

    Args:
        id2label: What the config holds there, or None.

    Returns:
        The names that are given; an id may be left out.

    Raises:
        ValueError: It is no mapping of numbers from 0 up to names of one line; the message says what was found.

    Example:
        >>> names_by_id({"0": "NEGATIVE", "1": "POSITIVE"})
        {0: 'NEGATIVE', 1: 'POSITIVE'}
    """
    found = {} if id2label is None else id2label
    try:
        names = {int(key): name for key, name in found.items()}
    except (AttributeError, ValueError, TypeError):
        raise ValueError(f"id2label = {_short(id2label)}, expected numbers and names") from None
    for i, name in names.items():
        if i < 0:
            raise ValueError(f"id2label with the id {i}, expected ids from 0 up")
        if isinstance(name, (dict, list)) or name is None:
            raise ValueError(f"id2label with {_short(name)} for {i}, expected a name")
        if any(unicodedata.category(character) in _UNFIT for character in str(name)):
            raise ValueError(f"id2label with {_short(name)} for {i}, expected a name of one line, without control characters")
    return {i: str(name) for i, name in names.items()}


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Give each label a name of its own, for an output that tells them apart by name.

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


def _short(value: Any) -> str:
    text = ascii(value)  # a lone surrogate cannot be printed
    return text if len(text) <= 80 else f"{text[:77]}..."
