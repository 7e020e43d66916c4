"""The part of a very long text that has all tokens to keep, so that the work is bounded by ``max_length``.

A part is enough if more of its tokens than are kept are *sure*, that is, equal those of the whole text. A cut changes only
the words next to it, and a model sees one word at a time, so the tokens of all other words are sure. A word is what the
pre-tokenizer yields; Chinese text or base64 may be a single one, see ``_sure_inside``.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from ..errors import without_panic
from .encode import LONG, naming
from .inputs import Text
from .squeeze import Squeezer

# The words at a cut that may differ, with room: a grapheme, a contraction, white space before a word need one or two each.
_MARGIN = 32
# Within a single word, sure tokens are looked for up to this many characters (bytes in byte-level BPE) for each one needed.
_WORD = 512
# Characters before a cut within a word among which a place is looked for that no token spans, and the places that are tried.
_LOOK, _TRIED = 1000, 8
# Characters of a piece whose tokens are counted by themselves; two texts that are not longer are tokenized whole.
_PIECE = 1 << 17
# Steps that look at a character and its neighbours, so that a cut changes only what is next to it.
_SPLITTERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
_PRE_TOKENIZERS = _SPLITTERS | {"Punctuation", "Digits", "Metaspace"}
_MAPPINGS = frozenset({"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"})
_RUNS = (" {2,}", r"\s{2,}|[\n\r\t]")  # the latter is DeBERTa's
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_NORMALIZERS = _MAPPINGS | {"Strip", "Nmt", "Precompiled", "Prepend"}


class Shortener:
    """Cuts very long texts before they are tokenized; its knowledge of the tokenizer is gathered at the first one."""

    def __init__(self, raw: Tokenizer) -> None:
        self._raw = raw

    def shorten(
        self, raw: Tokenizer, text: Text, max_length: int, *, left: bool, longest_first: bool = True, offsets: bool = False
    ) -> tuple[Text, bool]:
        """Return a text with the same tokens to keep, and whether it was cut, so that it has more than are kept.

        With ``offsets`` they are at the same characters. ``raw`` may read special tokens differently from the tokenizer that
        this object was made with. With ``longest_first`` the longer text of a pair is cut, so the part has more tokens than
        the other one; of two very long texts one may get an odd token more, so all their tokens are counted, piece by
        piece.
        """
        if not (self.left_safe and not offsets if left else self.right_safe):
            return text, False
        with naming(text):
            return self._shorten(raw, text, max_length, left, longest_first, str if offsets else self._squeezer)

    def _shorten(
        self, raw: Tokenizer, text: Text, max_length: int, left: bool, longest_first: bool, squeeze: Callable[[str], str]
    ) -> tuple[Text, bool]:
        first, second, least = text.text, text.pair or "", LONG * max_length
        both = len(first) > least and len(second) > least
        enough = max_length
        if longest_first and both:
            if (max_length - raw.num_special_tokens_to_add(True)) % 2:
                return self._share(raw, text, enough, left, squeeze)
        elif longest_first and text.pair:
            enough = max(enough, len(raw.encode_batch_fast([min(first, second, key=len)], add_special_tokens=False)[0]))
        parts, cut = [first, second], False
        for place, part in enumerate(parts):
            if len(part) > least:
                parts[place], shorter = self._part(raw, part, enough, left, squeeze)
                cut = cut or shorter
        return dataclasses.replace(text, text=parts[0], pair=None if text.pair is None else parts[1]), cut

    def _share(self, raw: Tokenizer, text: Text, enough: int, left: bool, squeeze: Callable[[str], str]) -> tuple[Text, bool]:
        """Shorten two very long texts so that the one with more tokens, or the second of two equal ones, still has more."""
        texts = (text.text, text.pair or "")
        if max(map(len, texts)) <= _PIECE:
            return text, False
        first, second = (self.count(raw, squeeze(each)) for each in texts)
        if first is None or second is None:
            return text, False
        longer = int(first <= second)
        other, _ = self._part(raw, texts[1 - longer], enough, left, squeeze)
        tokens = len(raw.encode_batch_fast([other], add_special_tokens=False)[0])
        most, cut = self._part(raw, texts[longer], max(enough, tokens), left, squeeze)
        if not cut:  # it is too short to have more tokens than a part, for sure
            return text, False
        parts = (other, most) if longer else (most, other)
        return dataclasses.replace(text, text=parts[0], pair=parts[1]), True

    def count(self, raw: Tokenizer, text: str, size: int = _PIECE) -> int | None:
        """Count a text's tokens in pieces of ``size`` characters; None if words are too long for that, or not safe to cut."""
        if not (self.left_safe and self.right_safe):
            return None
        count, around = 0, size // 4
        for start in range(0, len(text), size):
            end, low = start + size, max(0, start - around)
            high = plain_place(text, end + around) or len(text)
            encoding = raw.encode_batch([text[low:high]], add_special_tokens=False)[0]
            inside = [i for i, (place, _) in enumerate(encoding.offsets) if start <= low + place < end]
            known = [word for word in encoding.word_ids if word is not None]
            first, last = (encoding.word_ids[inside[0]], encoding.word_ids[inside[-1]]) if inside else (None, None)
            if first is None or last is None:
                return None
            # those next to a cut are not sure: the neighbouring piece has them
            if (low > 0 and first <= known[0] + self._margin) or (high < len(text) and last >= known[-1] - self._margin):
                return None
            count += len(inside)
        return count

    def _part(self, raw: Tokenizer, text: str, enough: int, left: bool, squeeze: Callable[[str], str]) -> tuple[str, bool]:
        """Return a part of a text with more than ``enough`` sure tokens, and whether it is not the whole."""
        size = 8 * (enough + self._margin)
        while size < len(text):
            end = len(text) if left else plain_place(text, size)
            if end is not None:
                part = squeeze(text[-size:] if left else text[:end])
                if self.sure(raw, part, left=left, enough=enough, most=len(text)) > enough:
                    return part, True
            size *= 4
        return squeeze(text), False

    def sure(self, raw: Tokenizer, part: str, *, left: bool, enough: int = 0, most: int | None = None) -> int:
        """Count the tokens of a part that are those of every text which it begins, or with ``left`` ends.

        A part that begins a text ends at a ``plain_place``. Fewer than ``enough`` may be counted as none, and all of a word
        for which more than ``most`` characters would have to be tokenized again.
        """
        if self._space_takers and not left:
            part = part.rstrip()
        encoding = raw.encode_batch([part], add_special_tokens=False)[0]
        words = [word for word in encoding.word_ids if word is not None]
        if not words:
            return 0
        if left:
            return len(words) - bisect.bisect_right(words, words[0] + self._margin)
        last = bisect.bisect_left(words, words[-1])
        inside = 0
        if self._longest:
            # bytes in place of unknown characters do not say which character it was
            word = part[encoding.offsets[last][0] :] if self._falls_back else "".join(encoding.tokens[last:])
            normalizer = raw.normalizer if self._falls_back else None
            word = normalizer.normalize_str(word) if normalizer else word
            inside = self._sure_inside(raw.model, word, enough - last, most)
        return last + inside if inside else bisect.bisect_left(words, words[-1] - self._margin)

    def _sure_inside(self, model: Any, word: str, enough: int, most: int | None) -> int:
        """Count the sure tokens of a word that a cut may have shortened.

        BPE of bytes, or with bytes for unknown characters, and Unigram have this property: wherever two tokens of a word
        meet, those before are the tokens of the word's start up to there. So there are few candidates for all tokens up to a
        place: those of the start up to it, or up to the first character of a token that spans it. Tokens that all candidates
        begin with are sure; the last of these is left out, since Unigram joins unknown characters. Candidates of a run such
        as "......" may differ from the first token on: the run's end decides. Then, and where tokens are extremely long, it is
        not worth going on.
        """
        known = word[: -4 * self._margin]
        end = len(known) - self._longest
        if not 0 < end <= _WORD * (max(enough, 0) + self._margin):
            return 0
        marks = (place for place in range(end, max(end - _LOOK, 0), -1) if known[place] == "▁")
        free = (place for place in itertools.islice(marks, _TRIED) if not self._spanning(model, known, place))
        place = next(free, end)
        starts = self._spanning(model, known, place)
        if most is not None and len(starts) * place > most:
            return 0
        sure = [(token.id, token.offsets) for token in model.tokenize(known[:place])]
        for start in starts:
            found = [(token.id, token.offsets) for token in model.tokenize(known[:start])]
            same = next((i for i, (one, other) in enumerate(zip(sure, found, strict=False)) if one != other), len(found))
            del sure[same:]
            if len(sure) <= enough:
                break
        return max(len(sure) - 1, 0)

    def _spanning(self, model: Any, word: str, place: int) -> list[int]:
        """List the places of a word at which tokens begin that span ``place``."""
        ends = {start: range(place + 1, start + self._longest + 1) for start in range(max(0, place - self._longest + 1), place)}
        return [
            start for start, stops in ends.items() if any(model.token_to_id(word[start:stop]) is not None for stop in stops)
        ]

    @functools.cached_property
    def right_safe(self) -> bool:
        """Return whether tokens far before a cut do not depend on the text after it."""
        steps = self._pre_tokenizers
        return (
            bool(steps)
            and all(map(_looks_near, steps[:-1]))
            and (_looks_near(steps[-1]) or self._byte_level)
            and all(step["type"] in _NORMALIZERS or _replaces(step) for step in self._normalizers)
            # NFC keeps white space; after other normalizers the text does not show what a token would take
            and not (
                any(step["type"] != "NFC" for step in self._normalizers)
                and any(token.normalized for token in self._space_takers)
            )
        )

    @functools.cached_property
    def left_safe(self) -> bool:
        """Return whether tokens far after a cut do not depend on the text before it."""
        contents = self._added
        starts = {content[:end] for content in contents for end in range(1, len(content) + 1)}
        return (
            bool(self._pre_tokenizers)
            and all(step["type"] in _SPLITTERS for step in self._pre_tokenizers)
            and all(step["type"] in _MAPPINGS for step in self._normalizers)
            # added tokens that overlap are found from left to right, so what is found depends on where the search begins
            and not any(content[start:] in starts for content in contents for start in range(1, len(content)))
        )

    @functools.cached_property
    def _pre_tokenizers(self) -> list[dict[str, Any]]:
        return _steps(self._raw.pre_tokenizer, "pretokenizers")

    @functools.cached_property
    def _normalizers(self) -> list[dict[str, Any]]:
        return _steps(self._raw.normalizer, "normalizers")

    @property
    def _byte_level(self) -> bool:
        last = self._pre_tokenizers[-1]
        return bool(last["type"] == "ByteLevel" and last.get("use_regex", True))

    @functools.cached_property
    def _falls_back(self) -> bool:
        """True for a BPE that writes unknown characters as bytes, of words in which characters are at most replaced."""
        model: Any = self._raw.model
        single = all(step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1 for step in self._normalizers)
        as_they_are = all(step["type"] not in ("ByteLevel", "Metaspace") for step in self._pre_tokenizers)
        return type(model).__name__ == "BPE" and bool(model.byte_fallback) and single and as_they_are

    @functools.cached_property
    def _space_takers(self) -> list[AddedToken]:
        """The added tokens that take all white space before them, if white space has tokens."""
        takers = [token for token in self._raw.get_added_tokens_decoder().values() if token.lstrip]
        return [] if self._pre_tokenizers[0]["type"] in _SPLITTERS else takers

    @functools.cached_property
    def _added(self) -> list[str]:
        """The added tokens, as they are and normalized."""
        normalize = self._raw.normalizer.normalize_str if self._raw.normalizer else str
        contents = [token.content for token in self._raw.get_added_tokens_decoder().values()]
        return [*contents, *map(normalize, contents)]

    @functools.cached_property
    def _margin(self) -> int:
        """The words at a cut that may differ: an added token or a replaced string that is cut may be as many as characters."""
        patterns = [step["pattern"].get("String", "") for step in self._normalizers if step["type"] == "Replace"]
        return _MARGIN + max(map(len, [*self._added, *patterns]), default=0)

    @functools.cached_property
    def _squeezer(self) -> Squeezer:
        # what replaces strings may make a token of two spaces
        replaces = any(step["type"] == "Replace" for step in self._normalizers)
        removes_space = self._pre_tokenizers[0]["type"] in _SPLITTERS and not replaces
        return Squeezer(self._raw, self._added, removes_space=removes_space)

    @functools.cached_property
    def _longest(self) -> int:
        """The length of the vocabulary's longest token if the model has the property of ``_sure_inside``, or 0."""
        model: Any = self._raw.model
        name = type(model).__name__
        if name == "BPE":
            plain = not (model.dropout or model.ignore_merges or model.continuing_subword_prefix or model.end_of_word_suffix)
            alphabet = pre_tokenizers.ByteLevel.alphabet() if self._byte_level else _BYTES
            known = all(model.token_to_id(byte) is not None for byte in alphabet)
            fits = plain and known and (self._byte_level or self._falls_back)
        else:
            sampled = getattr(model, "alpha", None) or getattr(model, "nbest_size", None)  # later than tokenizers 0.20
            fits = name == "Unigram" and not sampled and not _writes_bytes(model)
        return max(map(len, self._raw.get_vocab(with_added_tokens=False))) if fits else 0


def _writes_bytes(model: Any) -> bool:
    """Return whether a Unigram writes an unknown character as bytes; a vocabulary may have bytes that are not in use."""
    if model.token_to_id("<0x00>") is None:
        return False
    try:
        with without_panic():
            return any(token.value.startswith("<0x") for token in model.tokenize("\U0010ffff"))
    except Exception:  # tokenizers raises a bare Exception if the model has no unknown token
        return True


def _steps(part: Any, inner: str) -> list[dict[str, Any]]:
    """Return the steps of a tokenizer's part."""
    # A step pickles to its JSON, which is small; parsing the whole file again would take a vocabulary of megabytes.
    spec = {} if part is None else json.loads(part.__getstate__())
    return list(_flat(spec, inner)) if spec else []


def _flat(spec: dict[str, Any], inner: str) -> Iterator[dict[str, Any]]:
    if inner not in spec:
        yield spec
    for step in spec.get(inner, ()):
        yield from _flat(step, inner)


def _looks_near(step: dict[str, Any]) -> bool:
    """Return whether a step splits a text at a character by what is next to it."""
    return step["type"] in _PRE_TOKENIZERS or (step["type"] == "Split" and len(step["pattern"].get("String", "")) == 1)


def _replaces(step: dict[str, Any]) -> bool:
    """Return whether a step replaces a string, or runs of white space."""
    return step["type"] == "Replace" and ("String" in step["pattern"] or step["pattern"].get("Regex") in _RUNS)


def plain_place(text: str, start: int) -> int | None:
    """Return the first of some places from ``start`` on that is between two characters which are normalized by themselves."""
    for place in range(max(start, 1), min(start + 1000, len(text))):
        before, after = text[place - 1], text[place]
        if not (_joins(before) or _joins(after) or "\u1100" <= after <= "\u11ff"):  # the last are parts of Hangul syllables
            return place
    return None


def _joins(character: str) -> bool:
    """Return whether a character may belong to the one before or after it: a mark, a joiner, a skin tone, a new one."""
    kind = unicodedata.category(character)
    return kind[0] == "M" or kind in ("Cn", "Sk") or (kind == "Cf" and character not in "\u200b\u2060\ufeff\u00ad")
