"""Input checks: everything but a text or a pair of texts is an error with its index and the way out."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, TypeAlias

from ..errors import InputError, OptionError, check_integer, check_member, shown

# One input, as a caller writes it: "text", ("text", "pair"), {"text": ..., "text_pair": ...}
Item: TypeAlias = "str | tuple[str, str] | Mapping[str, str | None]"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A checked text, its second text if it is a pair, and its index in the caller's list."""

    text: str
    pair: str | None = None
    index: int

    def plain(self) -> str | tuple[str, str]:
        """Return the tokenizer's form of it."""
        return self.text if self.pair is None else (self.text, self.pair)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Words(Text):
    """A text that is given as words."""

    words: tuple[str, ...]
    starts: tuple[int, ...]  # the first character of each in the text


def check_single(item: Any) -> Text:
    """Check a text or pair that is passed by itself; as in transformers' pipeline, an empty second text is dropped.

    In a list, a ``Batcher`` and a file it stays, as in tokenizers.

    Raises:
        InputError: It is neither a text nor a pair.
    """
    text = check_item(item, 0)
    return text if text.pair != "" else dataclasses.replace(text, pair=None)


def check_items(items: Iterable[Any], start: int = 0) -> list[Text]:
    """Check each item of a collection; ``start`` is the index of the first one, for messages.

    Raises:
        InputError: ``items`` is not a collection, or an item is not a text.
    """
    found = items if isinstance(items, list) else collection(items)
    if found is None:
        raise InputError(f"expected a list of texts, found {_describe(items)}: put a single text into a list, [text]")
    return [check_item(item, start + offset) for offset, item in enumerate(found)]


def collection(inputs: Any) -> Iterable[Any] | None:
    """Return the items of a collection of texts, or None for anything else, such as a single text.

    Those of a sequence without ``__iter__``, such as transformers' ``KeyDataset``, are read one by one.

    Raises:
        InputError: ``inputs`` is a table.
    """
    if isinstance(inputs, (str, bytes, bytearray, memoryview, Mapping)):
        return None
    dimensions = getattr(inputs, "ndim", 1)
    if isinstance(dimensions, int) and dimensions > 1:  # iterating over pandas' DataFrame gives the names of its columns
        raise InputError(f"expected a list of texts, found a table, {type(inputs).__name__}: give one column of it")
    if isinstance(inputs, Iterable):
        return None if dimensions == 0 else inputs
    if isinstance(inputs, Sized) and hasattr(inputs, "__getitem__"):
        by_number: Any = inputs
        return (by_number[i] for i in range(len(inputs)))
    return None


def chunks(items: Iterable[Any], most: int = 256) -> Iterator[tuple[int, list[Any]]]:
    """Yield items of any number lazily, with the index of the first: one at first, then more, up to ``most``."""
    iterator, done, size = iter(items), 0, 1
    while chunk := list(itertools.islice(iterator, size)):
        yield done, chunk
        done, size = done + len(chunk), min(2 * size, most)


def check_item(item: Any, index: int) -> Text:
    """Check one text or pair.

    Raises:
        InputError: It is neither.
    """
    if type(item) is str:  # the common case first
        return Text(text=check_string(item, "text", index), index=index)
    if isinstance(item, Mapping):
        if "text" not in item or not item.keys() <= {"text", "text_pair"}:
            keys = shown(list(item))[1:-1]
            raise InputError(f"text {index} is a dict with keys {keys}: expected 'text', and 'text_pair' for a pair")
        pair = item.get("text_pair")
        second = None if pair is None else check_string(pair, "text", index)
        return Text(text=check_string(item["text"], "text", index), pair=second, index=index)
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError(f"text {index} is a tuple of {len(item)}: a pair is (text, text_pair)")
        return Text(text=check_string(item[0], "text", index), pair=check_string(item[1], "text", index), index=index)
    return Text(text=check_string(item, "text", index), index=index)


def check_string(text: Any, noun: str, index: int | None = None) -> str:
    """Return a text that is a str of Unicode, else raise ``InputError``, which names it by ``noun`` and ``index``."""
    if not isinstance(text, str):
        raise InputError(f"{_named(noun, index)} is {_describe(text)}, expected a str: {_way_out(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{_named(noun, index)} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is "
            "not Unicode text: decode the bytes with the right encoding, or text.encode('utf-8', 'replace').decode('utf-8')"
        ) from None
    return text


def _named(noun: str, index: int | None) -> str:
    return noun if index is None else f"{noun} {index}"


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, (int, float)):
        return f"the {type(value).__name__} {shown(value)}"
    return f"of type {type(value).__name__}"


def _way_out(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return "decode it first, value.decode('utf-8')"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "drop missing values, or give ''"
    if isinstance(value, (list, set)):
        return "a list is a batch and cannot hold another; a pair is a tuple, or a dict with text and text_pair"
    return "convert it with str(value)"


def check_flag(name: str, value: object) -> None:
    """Check that an option is True, False or None.

    Raises:
        OptionError: It is not.
    """
    if value is not None and not isinstance(value, bool):
        raise OptionError(f"{name} is {shown(value)}: give True, False or None")


class LongText(enum.StrEnum):
    """Treatment of a text of more than ``max_length`` tokens."""

    TRUNCATE = "truncate"
    ERROR = "error"
    WINDOW = "window"


class Truncation(enum.StrEnum):
    """transformers' strategies: of a pair cut the longer text first, one of them only, or none."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    DO_NOT_TRUNCATE = "do_not_truncate"


class Side(enum.StrEnum):
    """The side on which a text is cut."""

    LEFT = "left"
    RIGHT = "right"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The reading of a call's texts; None for what the classifier was loaded with."""

    long_text: LongText | None = None
    strategy: Truncation = Truncation.LONGEST_FIRST
    max_length: int | None = None
    side: Side | None = None
    split_special_tokens: bool | None = None
    counted: bool = True  # in stats; texts that are only tried are not

    @property
    def as_loaded(self) -> bool:
        """True if the caller has not said how long a text may be: cutting one then gives a warning."""
        return self.long_text is None and self.max_length is None


AS_LOADED = Cut()


class Aggregate(enum.StrEnum):
    """Combination of the logits of a text's windows: their mean, or the maximum for each label."""

    MEAN = "mean"
    MAX = "max"


class By(enum.StrEnum):
    """The places where a window may end: at any token, or at a sentence's end."""

    TOKENS = "tokens"
    SENTENCE = "sentence"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Windows of ``max_length`` tokens over a long text, as ``long_text=Window(...)``.

    Those by tokens are transformers' ``return_overflowing_tokens`` with the same ``stride``. Of a pair the longer text is read
    in windows; each repeats the other one, cut to half of the room (it then counts as truncated), and the overlap is at most
    half of the rest.

    Attributes:
        by: ``tokens``; or ``sentence`` for windows of whole sentences, which do not overlap.
        stride: Tokens that neighbouring windows share, fewer than fit in one; None for a quarter of a window. By sentence
            it counts only within a sentence that is longer than a window.
        sentences: By sentence, the most in a window, so that shorter texts are cut as well; None for as many as fit.
        aggregate: ``mean`` of the windows' logits, or ``max`` per label, which suits multi-label models.
        label: With ``max``, the label whose likeliest window gives all logits, which suits guards.

    Example:
        >>> Window(by="sentence", aggregate="max", label="INJECTION")
        Window(by='sentence', stride=None, sentences=None, aggregate='max', label='INJECTION')
    """

    by: str = "tokens"
    stride: int | None = None
    sentences: int | None = None
    aggregate: str = "mean"
    label: str | None = None

    def __post_init__(self) -> None:
        check_member(By, "by", self.by)
        check_integer("stride", self.stride, 0, optional=True)
        check_integer("sentences", self.sentences, 1, optional=True)
        check_member(Aggregate, "aggregate", self.aggregate)
        if self.sentences is not None and self.by != By.SENTENCE:
            raise OptionError(f"sentences is {self.sentences}, and by is {self.by!r}: give by='sentence' with it")
        if self.label is not None and not isinstance(self.label, str):
            raise OptionError(f"label is {shown(self.label)}: give the name of a label, or None")
        if self.label is not None and self.aggregate != Aggregate.MAX:
            raise OptionError(
                f"label is {shown(self.label)}, and aggregate is {self.aggregate!r}: give aggregate='max' with it"
            )
