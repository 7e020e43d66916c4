"""Calls of a model with several heads: each head reads its own logits, and answers by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ..artifact import Head, Manifest, columns_of
from ..errors import OptionError, shown
from .call import CallArguments, call_parser
from .inputs import Window
from .outputs import CallOptions, Floats, Function
from .thresholds import MULTI_LABEL, is_number
from .tokenizer import Tokens
from .windows import Combination


def function_of(head: Head) -> Function:
    """Return a head's function from logits to scores."""
    return Function.choose(None, head.problem_type, len(head.labels), head.function_to_apply)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HeadCall:
    """The checked options of a call for one head, with its labels and its columns of the logits."""

    name: str
    labels: tuple[str, ...]
    start: int
    call: CallOptions

    def results(self, logits: Floats) -> list[Any]:
        """Return the head's result of each text."""
        own = logits[:, self.start : self.start + len(self.labels)]
        return list(self.call.results(own, self.labels))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HeadsCall(CallOptions):
    """The checked options of a call for all heads."""

    heads: tuple[HeadCall, ...]

    @property
    def best_only(self) -> bool:
        """False: a result is a dict, with and without a list."""
        return False

    def results(self, logits: Floats, labels: tuple[str, ...]) -> list[Any]:
        """Return each text's results by the names of the heads."""
        found = [head.results(logits) for head in self.heads]
        names = [head.name for head in self.heads]
        return [dict(zip(names, each, strict=True)) for each in zip(*found, strict=True)]


def heads_parser(manifest: Manifest) -> Callable[[CallArguments], HeadsCall]:
    """Return a function that checks the arguments of a call for each head."""
    parsers = [call_parser(manifest.of(head), function_of(head)) for head in manifest.heads]

    def parse(arguments: CallArguments) -> HeadsCall:
        threshold = arguments.get("threshold")
        multi = [head.problem_type == MULTI_LABEL for head in manifest.heads]
        if threshold is not None and (not any(multi) or not is_number(threshold)):
            raise OptionError(f"threshold is {shown(threshold)}: with several heads give one number, for multi-label ones")
        without = cast(CallArguments, {name: value for name, value in arguments.items() if name != "threshold"})
        calls = [read(arguments if takes else without) for read, takes in zip(parsers, multi, strict=True)]
        heads = tuple(
            HeadCall(name=head.name, labels=head.labels, start=columns.start, call=call)
            for (head, columns), call in zip(columns_of(manifest.heads), calls, strict=True)
        )
        return HeadsCall(function=calls[0].function, cut=calls[0].cut, heads=heads)

    return parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combinations:
    """The combination of the logits of a text's windows, head by head."""

    heads: tuple[tuple[slice, Combination], ...]

    @classmethod
    def of(cls, window: Window, heads: Sequence[Head]) -> Combinations:
        """Return the combination of each head; raise ``OptionError`` if there are several, and ``window`` is for a label."""
        if window.label is not None and len(heads) > 1:
            raise OptionError(f"label is {shown(window.label)}, and several heads have labels: leave it out")
        own = ((columns, Combination.of(window, head.labels, function_of(head))) for head, columns in columns_of(heads))
        return cls(heads=tuple(own))

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        """Combine the logits of rows, ``[rows, labels]``, into those of texts, ``[texts, labels]``."""
        return np.concatenate([combine(tokens, logits[:, columns]) for columns, combine in self.heads], axis=1)
