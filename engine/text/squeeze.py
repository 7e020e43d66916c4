"""Shorter texts of the same tokens: less white space, and shorter words of those that are too long for WordPiece."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer, models

# Longer runs of white space and of characters that the normalizer removes are shortened, to this many at either end.
_EDGE = 16


class Squeezer:
    """Shortens runs of characters within a text.

    What a character does is asked of the tokenizer: put between two letters it parts them, vanishes, or continues the word.
    """

    def __init__(self, raw: Tokenizer, added: Sequence[str], *, removes_space: bool) -> None:
        normalizer, self._pre_tokenizer = raw.normalizer, raw.pre_tokenizer
        self._normalize = normalizer.normalize_str if normalizer else str
        model = raw.model
        self._longest = model.max_input_chars_per_word if isinstance(model, models.WordPiece) else None
        self._token = max(map(len, added), default=0)
        # an added token of white space, or one that the normalizer shortens, may lie within a run
        self._usable = (
            removes_space
            and len(self._pieces("x")) == 1
            and not any(len(self._normalize(token)) != len(token) or len(token.split()) != 1 for token in added)
        )
        if any(len(self._pieces(token)) < 2 for token in added):
            self._longest = None  # and one that is a word within a longer word

    def __call__(self, text: str) -> str:
        """Return a text of the same tokens."""
        if not self._usable:
            return text
        blank, vanishing, joining = self._kinds(text)
        if blank or vanishing:
            spaces = re.compile(f"[{blank}]") if blank else None
            text = _runs(blank + vanishing, 4 * _EDGE).sub(lambda run: _shorter(run[0], spaces), text)
        if self._longest is not None and (joining or vanishing):
            text = _runs(joining + vanishing, 4 * self._longest).sub(self._shorter_word, text)
        return text

    def _kinds(self, text: str) -> tuple[str, str, str]:
        """Return the characters that part words and yield no token, those that vanish and those that continue a word.

        They are escaped for a set of a regular expression.
        """
        joined, parted = self._pieces("xx"), self._pieces("x x")
        kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
        for character in set(text):
            pieces = self._pieces(f"x{character}x")
            if pieces == joined:
                kinds[1].append(character)
            elif pieces == parted:
                kinds[0].append(character)
            elif len(pieces) == 1:
                kinds[2].append(character)
        blank, vanishing, joining = ("".join(map(re.escape, kind)) for kind in kinds)
        return blank, vanishing, joining

    def _pieces(self, text: str) -> list[str]:
        assert self._pre_tokenizer is not None  # the caller knows its steps
        return [piece for piece, _ in self._pre_tokenizer.pre_tokenize_str(self._normalize(text))]

    def _shorter_word(self, run: re.Match[str]) -> str:
        """Return a word that is still too long, and so a single unknown token, with the same characters at its ends."""
        word, needed = run[0], (self._longest or 0) + 2 * self._token
        start = end = 2 * needed
        while start < len(word) and len(self._normalize(word[:start])) <= needed:
            start *= 2
        while end < len(word) and len(self._normalize(word[-end:])) <= needed:
            end *= 2
        return word if start + end >= len(word) else word[:start] + word[-end:]


def _runs(characters: str, least: int) -> re.Pattern[str]:
    """Return the pattern of runs of the characters; looking back keeps the search linear."""
    return re.compile(f"(?<![{characters}])[{characters}]{{{least},}}")


def _shorter(run: str, spaces: re.Pattern[str] | None) -> str:
    between = spaces.search(run) if spaces else None
    return run[:_EDGE] + (between[0] if between else "") + run[-_EDGE:]
