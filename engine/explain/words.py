"""Where the words of a text begin and end, in any script, for leaving them out one by one."""

from __future__ import annotations

import unicodedata

_INNER = "'’-"  # joins two letters to one word: didn't, well-made
# Scripts that write no spaces between words: each character by itself, as BERT's tokenizer takes them.
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F))
_JOINERS = "\u200c\u200d"


def words(text: str) -> list[tuple[int, int]]:
    """Split a text into words and runs of equal signs; a character's combining marks stay with it.

    Returns:
        Start and end of each, in characters.

    Example:
        >>> text = "I didn't... love it!"
        >>> [text[start:end] for start, end in words(text)]
        ['I', "didn't", '...', 'love', 'it', '!']
    """
    found: list[tuple[int, int]] = []
    kind = ""  # of the word under way
    for i, character in enumerate(text):
        if kind and _continues(text, i, kind):
            found[-1] = (found[-1][0], i + 1)
            continue
        kind = _kind(character)
        if kind:
            found.append((i, i + 1))
    return found


def _kind(character: str) -> str:
    """Return what a character begins: ``letters``, ``ideograph``, a run of one sign, or nothing."""
    if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    if unicodedata.category(character)[0] not in "LNM":
        return character
    is_ideograph = any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
    return "ideograph" if is_ideograph else "letters"


def _continues(text: str, i: int, kind: str) -> bool:
    """Tell whether character ``i`` belongs to the word before it."""
    character = text[i]
    if unicodedata.category(character)[0] == "M" or character in _JOINERS or unicodedata.category(character) == "Sk":
        return True  # marks, joiners, skin tones
    if text[i - 1] in _JOINERS:
        return not character.isspace()
    if kind == "letters":
        joined = character in _INNER and i + 1 < len(text) and _kind(text[i + 1]) == "letters" and text[i - 1] not in _INNER
        return joined or _kind(character) == "letters"
    return _kind(character) == kind and kind != "ideograph"
