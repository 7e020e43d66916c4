"""What may be classified: a text, or a pair of texts. Everything else is refused here, with its place and the way out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..errors import InputError

# One thing to classify, as a caller writes it: "text", ("text", "pair"), {"text": ..., "text_pair": ...}
Item: TypeAlias = "str | tuple[str, str] | Mapping[str, str | None]"
_PAIR_KEYS = ("text", "text_pair")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A checked text, its pair where it has one, and its place in what the caller gave."""

    text: str
    pair: str | None = None
    index: int

    def plain(self) -> str | tuple[str, str]:
        """Return it as the tokenizer takes it."""
        return self.text if self.pair is None else (self.text, self.pair)


def alone(text: Text) -> Text:
    """Return a text that a call was given alone: its second text, where that is empty, is none.

    So it is in transformers' pipeline and in ``tokenizer(text, "")``. Tokenizers that are called with lists of texts, as in
    training, keep such a pair, with both its ends, and so does whatever takes or makes lists here: ``clf([...])``, ``stream``,
    ``predict`` and its kind, ``Batcher``, ``score_file``.
    """
    return text if text.pair != "" else dataclasses.replace(text, pair=None)


def check_items(items: Iterable[Any], start: int = 0) -> list[Text]:
    """Check each item of a collection.

    Args:
        items: Texts, pairs as tuples, or mappings with ``text`` and ``text_pair``.
        start: Index of the first one, for the messages.

    Raises:
        InputError: The collection is none, or an item is no text; the message names its index.
    """
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise InputError(f"expected a list of texts, found {_describe(items)}: put a single text into a list, [text]")
    return [check_item(item, start + offset) for offset, item in enumerate(items)]


def check_item(item: Any, index: int) -> Text:
    """Check one text or pair.

    Raises:
        InputError: It is neither; the message names the index, what was found, and the way out.
    """
    if type(item) is str:  # the common case first
        return Text(text=_check_text(item, index), index=index)
    if isinstance(item, Mapping):
        unknown = [key for key in item if key not in _PAIR_KEYS]
        if unknown or "text" not in item:
            keys = ", ".join(map(repr, item))
            raise InputError(f"text {index} is a dict with keys {keys}: expected 'text', and 'text_pair' for a pair")
        pair = item.get("text_pair")
        return Text(text=_check_text(item["text"], index), pair=None if pair is None else _check_text(pair, index), index=index)
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError(f"text {index} is a tuple of {len(item)}: a pair is (text, text_pair)")
        return Text(text=_check_text(item[0], index), pair=_check_text(item[1], index), index=index)
    return Text(text=_check_text(item, index), index=index)


def _check_text(text: Any, index: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"text {index} is {_describe(text)}, expected a str: {_way_out(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {index} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is no "
            "Unicode text: decode the bytes with the right encoding, or text.encode('utf-8', 'replace').decode('utf-8')"
        ) from None
    return text


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, (int, float)):
        return f"the {type(value).__name__} {value}"
    return f"of type {type(value).__name__}"


def _way_out(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return "decode it first, value.decode('utf-8')"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "drop missing values, or give ''"
    if isinstance(value, (list, set)):
        return "a list is a batch and cannot hold another; a pair is a tuple, or a dict with text and text_pair"
    return "convert it with str(value)"
