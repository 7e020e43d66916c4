"""Words of a text in any script, and the effect of leaving one out."""

from __future__ import annotations

import dataclasses
import unicodedata

_INNER = "'’-"  # joins two letters to one word: didn't, well-made
# Scripts that write no spaces between words: each character by itself, as BERT's tokenizer takes them.
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F))
_JOINERS = "\u200c\u200d"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordEffect:
    """The effect of leaving out a word.

    Attributes:
        word: The word, or neighbouring words of a long text.
        start: First character in its text.
        end: The character after its last.
        segment: 0 in the first text, 1 in the second.
        change: Predicted label's probability (of a regression, the value) with it minus without it.
    """

    word: str
    start: int
    end: int
    segment: int
    change: float


def words(text: str) -> list[tuple[int, int]]:
    """Return start and end, in characters, of each word or run of equal signs; combining marks stay with their character.

    Example:
        >>> text = "I didn't... love it!"
        >>> [text[start:end] for start, end in words(text)]
        ['I', "didn't", '...', 'love', 'it', '!']
    """
    spans: list[tuple[int, int]] = []
    kind = ""  # of the current word
    for i, character in enumerate(text):
        if kind and _continues(text, i, kind):
            spans[-1] = (spans[-1][0], i + 1)
            continue
        kind = _kind(character)
        if kind:
            spans.append((i, i + 1))
    return spans


def _kind(character: str) -> str:
    """Return a character's kind of word: ``letters``, ``ideograph``, the sign itself, or nothing."""
    if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    if unicodedata.category(character)[0] not in "LNM":
        return character
    is_ideograph = any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
    return "ideograph" if is_ideograph else "letters"


def _continues(text: str, i: int, kind: str) -> bool:
    character = text[i]
    if unicodedata.category(character)[0] == "M" or character in _JOINERS or unicodedata.category(character) == "Sk":
        return True  # marks, joiners, skin tones
    if text[i - 1] in _JOINERS:
        return not character.isspace()
    if kind == "letters":
        joined = character in _INNER and i + 1 < len(text) and _kind(text[i + 1]) == "letters" and text[i - 1] not in _INNER
        return joined or _kind(character) == "letters"
    return _kind(character) == kind and kind != "ideograph"
