"""Scores of a Unigram vocabulary, spelled so that ``tokenizers`` reads them as they are.

Its JSON parser takes a number's digits as an integer, rounds that to float64, and divides by a power of ten, which rounds
again: -9.007200000000001 becomes -9.0072, one unit in the last place off. Then sums of scores that were equal differ, or the
reverse, and a text is cut differently. That happens to one number of 16 or 17 digits in seven. With another power of ten, or
other digits behind the last that counts, all but one in a thousand, just below a power of two, are read as they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Spec = dict[str, Any]
Numbers = NDArray[np.float64]
_EXPONENTS = range(14, 23)  # of powers of ten to divide by, all exact in float64
_STEPS = (0, 1, -1, 2, -2)  # neighbours of the integer, in units in its last place
_MOST = 2.0**64  # of the integer: beyond, the parser drops digits
_HERE = "\0vocab\0"  # the place of the vocabulary


def to_text(spec: Spec, *, indent: int | None = None) -> str:
    """Write a tokenizer.json whose scores are read as they are."""
    model = spec["model"]
    if model.get("type") != "Unigram":
        return json.dumps(spec, indent=indent, ensure_ascii=False)
    texts = [json.dumps(piece, ensure_ascii=False) for piece, _ in model["vocab"]]
    rows = ",\n".join(map("[{}, {}]".format, texts, spell([score for _, score in model["vocab"]])))
    around = json.dumps({**spec, "model": {**model, "vocab": _HERE}}, indent=indent, ensure_ascii=False)
    before, after = around.split(json.dumps(_HERE))
    return f"{before}[\n{rows}\n]{after}"


def read_by_python(content: bytes, spec: Spec) -> Spec:
    """Return a tokenizer.json, read by ``tokenizers``, with scores as Python reads them: transformers' classes take those."""
    model = spec["model"]
    if model.get("type") != "Unigram":
        return spec
    vocab = [[piece, float(score)] for piece, score in json.loads(content)["model"]["vocab"]]
    return {**spec, "model": {**model, "vocab": vocab}}


def spell(scores: Sequence[float]) -> list[str]:
    """Spell numbers as JSON that ``tokenizers`` reads as them: as Python does, where that is read rightly or nothing is."""
    wanted = np.array(scores, dtype=np.float64)
    spelled = list(map(repr, wanted.tolist()))
    wrong = np.array([place for place, text in enumerate(spelled) if _is_odd(text, wanted[place])], dtype=np.int64)
    wrong = wrong[read(spelled[place] for place in wrong) != wanted[wrong]]
    for alike in (True, False):  # first spellings that Python, too, reads as the number
        for exponent, step in itertools.product(_EXPONENTS, _STEPS):
            there, texts = _other_spellings(wanted[wrong], exponent, step)
            right = read(texts) == wanted[wrong[there]]
            if alike:
                right &= np.array(list(map(float, texts))) == wanted[wrong[there]]
            for place, text in zip(wrong[there][right], itertools.compress(texts, right), strict=True):
                spelled[place] = text
            wrong = np.delete(wrong, there[right])
    return spelled


def _is_odd(text: str, number: float) -> bool:
    """Return whether the parser may misread a number."""
    whole, _, fraction = text.partition(".")
    if "e" in text:
        return True
    return len(text) > 15 and float(int(whole + fraction)) / 10.0 ** len(fraction) != number


def _other_spellings(numbers: Numbers, exponent: int, step: int) -> tuple[NDArray[np.intp], list[str]]:
    """Return for which numbers an integer over a power of ten, rounded twice, is the number; and the texts of these."""
    power = 10.0**exponent
    near = np.rint(np.abs(numbers) * power)
    unit = np.maximum(np.spacing(near), 1.0)
    rounded = near + step * unit
    (there,) = np.nonzero((rounded > 0) & (rounded < _MOST) & (rounded / power == np.abs(numbers)))
    # Of the integers that are rounded to this one, the nearest, so that other parsers are right as well.
    off = np.maximum(unit[there] / 2 - 1, 0).astype(np.int64) * np.sign(step)
    digits = [str(int(value) - int(less)).zfill(exponent + 1) for value, less in zip(rounded[there], off, strict=True)]
    signs = np.where(numbers[there] < 0, "-", "")
    return there, [f"{sign}{text[:-exponent]}.{text[-exponent:]}" for sign, text in zip(signs, digits, strict=True)]


def read(spelled: Iterable[str]) -> Numbers:
    """Read numbers as ``tokenizers`` does."""
    rows = ",".join(f'["{i}",{number}]' for i, number in enumerate(spelled))
    if not rows:
        return np.zeros(0)
    model = Tokenizer.from_str(f'{{"version": "1.0", "model": {{"type": "Unigram", "unk_id": 0, "vocab": [{rows}]}}}}').model
    return np.array([score for _, score in json.loads(model.__getstate__())["vocab"]])
