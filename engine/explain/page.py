"""The page of ``fusedbert explain``: template, style, script and data in one file that loads nothing.

Everything made from the text goes through a block of JSON, with ``<``, ``>`` and ``&`` escaped, into text nodes. A content
security policy, by hash, blocks other scripts and all loading.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..hardware.packages import version
from ..text.outputs import Floats
from .words import WordEffect

FINE, COARSE = 1024, 256  # steps to a factor of e
_UNSEEN = 100.0  # below the least score of a key that a query does not see: its exp() is 0
_MOST = 0xFFFF  # steps: the limit for weights below exp(-64), or exp(-256) in coarse steps
_LEAST = 3  # weights of a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressed:
    """Weights as the page reads them: base64 of a zlib stream.

    The stream has c, float32 ``[rows]``, a row for each layer, head and query; if not all are kept, each weight's key as its
    distance from the one before, uint16 ``[rows, keep]``, all low bytes and then all high bytes; then c - z in steps, likewise.
    """

    data: str
    steps: int  # to a factor of e
    keep: int  # weights of a row
    share: float  # of all weight that they hold, 0 to 1


def compress(z: Floats, budget: int, hidden: NDArray[np.bool_] | None = None) -> Compressed:
    """Compress all weights, or the largest of each row that fit, given the scores ``[layers, heads, query, key]``.

    ``hidden``, of the same shape, says which keys a query does not see, because they are beyond a window.

    Raises:
        OptionError: Not even a few of each row fit into ``budget`` bytes.
    """
    n = z.shape[-1]
    z = z if hidden is None else np.where(hidden, z.min() - _UNSEEN, z)
    z = z.reshape(-1, n)  # [rows, key]
    top = z.max(axis=-1, keepdims=True)
    c = top + np.log(np.exp(z - top).sum(axis=-1, keepdims=True))  # [rows, 1]
    below = c - z  # [rows, key]
    fixed = c.astype("<f4").tobytes()
    # Sizes that cannot fit are not tried: deflated, a weight takes a byte or more, and two with its key.
    keep = n if below.size <= budget else max(_LEAST, min(n, int(budget / (2.2 * len(z)))))
    for steps in (FINE, COARSE):
        if keep == n and len(data := _deflate(fixed + _planes(below, steps))) <= budget:
            return Compressed(data=data, steps=steps, keep=n, share=1.0)
    while keep >= _LEAST:
        largest = np.sort(np.argpartition(below, keep - 1, axis=-1)[:, :keep], axis=-1)  # [rows, keep], ascending
        chosen = np.take_along_axis(below, largest, axis=-1)
        data = _deflate(fixed + _planes(np.diff(largest, axis=-1, prepend=0), 1) + _planes(chosen, COARSE))
        if len(data) <= budget:
            return Compressed(data=data, steps=COARSE, keep=keep, share=float(np.exp(-chosen).sum() / len(z)))
        keep = min(keep - 1, int(0.98 * keep * budget / len(data)))
    raise OptionError(f"max_bytes leaves {budget} bytes for the weights of {n} tokens, too few: raise it, or shorten the text")


def _planes(values: NDArray[np.floating] | NDArray[np.integer], steps: int) -> bytes:
    """Round to whole steps, as uint16: all low bytes, then all high bytes, which deflate well."""
    rounded = np.clip(np.rint(values * steps), 0, _MOST).astype("<u2").reshape(-1)
    planes: NDArray[np.uint8] = rounded.view(np.uint8).reshape(-1, 2)  # [values, low and high]
    return planes.T.tobytes()


def _deflate(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


_SCRIPTS = ("data.js", "text.js", "heads.js", "worked.js", "grid.js", "main.js")  # in this order


def render(
    facts: dict[str, Any],
    scores: Floats,
    hidden: NDArray[np.bool_] | None = None,
    *,
    truncated: bool,
    max_bytes: int,
) -> str:
    """Return the page for ``facts``, as the script reads them, and what ``compress`` takes.

    Raises:
        OptionError: Not even a few weights of each token fit into ``max_bytes``.
    """
    layers, heads, n, _ = scores.shape
    frame = len(_fill(facts).encode())
    weights = compress(scores, max_bytes - frame - 1000, hidden)  # 1000 for the sentence on what is kept, and the numbers below
    data = {"data": weights.data, "steps": weights.steps, "keep": weights.keep}
    return _fill(facts | {"weights": data, "kept": _kept(weights, layers * heads, n, truncated)})


def pieces(text: str, effects: Iterable[WordEffect], end: int) -> Iterable[tuple[str, float | None]]:
    """Cut a text, read up to ``end``, into words with their effects and the characters between them."""
    start = 0
    for effect in effects:
        if effect.start > start:
            yield text[start : effect.start], None
        yield text[effect.start : effect.end], round(effect.change, 6)
        start = effect.end
    if start < len(text):
        last = max(start, end)
        yield text[start:last] + (" …" if last < len(text) else ""), None


def first_query(segments: Sequence[int | None], offsets: Sequence[tuple[int, int]], effects: Iterable[WordEffect]) -> int:
    """Return the token to open with: of the word with the largest effect, else the first of the text."""
    tokens = [i for i, segment in enumerate(segments) if segment is not None]
    most = max(effects, key=lambda effect: abs(effect.change), default=None)
    for i in tokens:
        start, end = offsets[i]
        if most is not None and segments[i] == most.segment and start < most.end and end > most.start:
            return i
    return tokens[0] if tokens else 0


def _kept(weights: Compressed, maps: int, n: int, truncated: bool) -> str:
    cut = " The text was cut at the model's longest." if truncated else ""
    made = f" Made by fusedbert {version()}, from the exported model's own weights."
    if weights.keep == n:
        return f"This page holds all {maps * n * n:,} weights: {maps} heads, {n} x {n} each.{cut}{made}"
    return (
        f"To stay small, this page leaves out weights: of each token's {n} it keeps the {weights.keep} largest in each of the "
        f"{maps} heads, which hold {weights.share:.0%} of all weight.{cut}{made}"
    )


def _fill(data: dict[str, Any]) -> str:
    folder = importlib.resources.files("fusedbert.engine.explain") / "template"
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = "\n".join(['"use strict";', *((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)])
    policy = f"default-src 'none'; img-src data:; style-src {csp_hash(style)}; script-src {csp_hash(script)}; base-uri 'none'"
    # In JSON these are the same letters; in the page they can end no element and begin none.
    escapes = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
    document = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(escapes)
    page = (folder / "page.html").read_text(encoding="utf-8")
    title = html.escape("".join(piece for piece, _ in data["texts"][0])[:60].strip() or "A text")
    parts = {"policy": policy, "title": f"{title} · attention", "style": style, "script": script, "data": document}
    return fill_template(page, parts)


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """Put parts into the ``{{name}}`` places of a template; their content is not scanned again."""
    head, *rest = template.split("{{")
    return head + "".join(parts[name] + tail for name, tail in (piece.split("}}", 1) for piece in rest))


def csp_hash(content: str) -> str:
    """Return the content security policy's source expression for an inline block."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
