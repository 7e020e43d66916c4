"""The keywords of a tagger's call, which are those of transformers' token classification pipeline, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypedDict

import numpy as np

from ...errors import InputError, OptionError, check_integer, check_member, shown
from ...text.call import pipeline_keywords
from ...text.inputs import Text, Words, check_flag, check_item
from .entities import Strategy


class TagArguments(TypedDict, total=False):
    """The keywords of a call, which ``TokenClassifier.__call__`` describes."""

    aggregation_strategy: str | None
    ignore_labels: Collection[str] | None
    stride: int | None
    is_split_into_words: bool
    delimiter: str | None
    batch_size: int | None
    num_workers: int | None


_KNOWN = frozenset(TagArguments.__annotations__)
# Keywords of the pipeline, of this version or an older one, that a call does not have, and the way out.
_ELSEWHERE = {
    "offset_mapping": "the characters of each token are those of the tokenizer: leave it out, or give is_split_into_words=True",
    "grouped_entities": "give aggregation_strategy='simple', or 'none'",
    "ignore_subwords": "give aggregation_strategy='first', or 'simple'",
    "device": "give it to from_pretrained",
    "max_length": "give it to from_pretrained",
    "truncation": "give long_text='truncate', 'error' or 'window' to from_pretrained",
    "padding": "padding does not change a score: leave it out",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tagging:
    """The checked keywords of a call."""

    strategy: Strategy = Strategy.NONE
    ignored: Collection[str] = ("O",)
    stride: int | None = None  # tokens that windows share; None for what the tagger was loaded with
    delimiter: str | None = None  # between words; None for texts that are not given as words

    def updated(self, arguments: TagArguments) -> Tagging:
        """Return these with the keywords of a call.

        Raises:
            OptionError: A value is not valid, or a call lacks that keyword of the pipeline; the message has the way out.
            TypeError: A keyword is unknown to the pipeline too.
        """
        given = pipeline_keywords(arguments, _KNOWN, _ELSEWHERE)
        check_integer("stride", given.get("stride"), 0, optional=True)
        found = dataclasses.replace(
            self,
            strategy=self.strategy if (named := given.get("aggregation_strategy")) is None else check_strategy(named),
            ignored=self.ignored if (labels := given.get("ignore_labels")) is None else check_ignored(labels),
            stride=given.get("stride"),
            delimiter=_delimiter(given),
        )
        if found.stride is not None and found.strategy is Strategy.NONE:
            raise OptionError(
                "stride is given, and aggregation_strategy is 'none': give simple, first, average or max, as the pipeline "
                "asks for; for single tokens give long_text=Window(stride=...) to from_pretrained"
            )
        return found

    def check(self, items: Iterable[Any], start: int = 0) -> list[Text]:
        """Check each text; ``start`` is the index of the first one, for messages.

        Raises:
            InputError: One is not a text, or not a list of words where words are expected.
        """
        return [check_text(item, start + i, self.delimiter) for i, item in enumerate(items)]


def check_strategy(value: Any) -> Strategy:
    """Return the strategy of a name in any case, as the pipeline does.

    Raises:
        OptionError: The name is unknown.
    """
    value = getattr(value, "value", value)  # transformers' enumeration has the same values
    return check_member(Strategy, "aggregation_strategy", value.lower() if isinstance(value, str) else value)


def check_ignored(labels: Any) -> tuple[str, ...]:
    """Return the labels to leave out.

    Raises:
        OptionError: They are not a collection of names.
    """
    if isinstance(labels, (str, bytes, Mapping)) or not isinstance(labels, Iterable):
        raise OptionError(f"ignore_labels is {shown(labels)}: give a list of labels, such as ['O'], or []")
    names = tuple(labels)
    if not all(isinstance(name, str) for name in names):
        raise OptionError(f"ignore_labels is {shown(labels)}: give names of labels")
    return names


def check_text(item: Any, index: int, delimiter: str | None = None) -> Text:
    """Check a text, or with a ``delimiter`` a list of words, between which it stands.

    Raises:
        InputError: It is none.
    """
    if delimiter is None:
        text = check_item(item, index)
        if text.pair is not None:
            raise InputError(f"text {index} is a pair, and a tagger reads single texts: give its texts one by one")
        return text
    if not isinstance(item, (list, tuple)):
        raise InputError(
            f"text {index} is of type {type(item).__name__}, and is_split_into_words is True: give a list of words"
        )
    words = tuple(check_item(word, index).text if isinstance(word, str) else _no_word(word, index) for word in item)
    sizes = [len(word) + len(delimiter) for word in words]
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    return Words(text=delimiter.join(words), index=index, words=words, starts=tuple(starts))


def _no_word(word: object, index: int) -> str:
    raise InputError(f"text {index} has {shown(word)} among its words: give each as a str")


def _delimiter(given: dict[str, Any]) -> str | None:
    split, delimiter = given.get("is_split_into_words"), given.get("delimiter")
    check_flag("is_split_into_words", split)
    if delimiter is not None and not isinstance(delimiter, str):
        raise OptionError(f"delimiter is {shown(delimiter)}: give a str, or None for a space")
    return (" " if delimiter is None else delimiter) if split else None
