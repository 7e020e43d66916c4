"""The page of ``fusedbert explain``: a template, its style and script, and the data, in one file that loads nothing.

What comes from the text goes into a block of JSON, in which ``<``, ``>`` and ``&`` are written as escapes, and from there
into the page as text nodes. A content security policy lets no other script run, by hash, and nothing load.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Iterable
from typing import Any

from ..hardware.packages import version
from .attentions import Attentions, WordEffect
from .compress import Packed, pack
from .occlusion import read_spans
from .words import words

_SCRIPTS = ("data.js", "text.js", "heads.js", "worked.js", "grid.js", "main.js")  # in this order


def render(shown: Attentions, max_bytes: int) -> str:
    """Write the page.

    Args:
        shown: What it shows.
        max_bytes: Its size at most, in UTF-8.

    Raises:
        OptionError: The weights do not fit, not even the few largest of each token.
    """
    data = _facts(shown)
    frame = len(_fill(data).encode())
    packed = pack(shown, max_bytes - frame - 1000)  # the sentence on what is kept, and the packing's own numbers
    layers, heads, n, _ = shown.weights.shape
    data["weights"] = {"data": packed.data, "steps": packed.steps, "keep": packed.keep}
    data["kept"] = _kept(packed, layers * heads, n, shown.truncated)
    return _fill(data)


def _facts(shown: Attentions) -> dict[str, Any]:
    """Return all that the page says, but for the weights."""
    layers, heads, _, _ = shown.weights.shape
    best = list(shown.probabilities).index(shown.prediction["label"])
    together = any(len(words(effect.word)) > 1 for effect in shown.effects or ())
    return {
        "tokens": shown.readable,
        "names": shown.tokens,
        "segments": shown.segments,
        "layers": layers,
        "heads": heads,
        "size": shown.queries.shape[-1],
        "labels": list(shown.probabilities.items()),
        "best": best,
        "regression": shown.problem_type == "regression" or shown.function == "none",  # values, no shares of 1
        "texts": [list(_pieces(shown, segment)) for segment in range(1 if shown.text_pair is None else 2)],
        "together": together,
        "query": _first_query(shown),
    }


def _pieces(shown: Attentions, segment: int) -> Iterable[tuple[str, float | None]]:
    """Cut a text into its words, each with its effect, and what stands between them."""
    text = shown.text_pair if segment else shown.text
    end = 0
    for effect in shown.effects or ():
        if effect.segment != segment or text is None:
            continue
        if effect.start > end:
            yield text[end : effect.start], None
        yield text[effect.start : effect.end], round(effect.change, 6)
        end = effect.end
    if text is not None and end < len(text):
        last = max(end, read_spans(shown)[segment][1])
        yield text[end:last] + (" …" if last < len(text) else ""), None


def _first_query(shown: Attentions) -> int:
    """Choose the query that the page opens with: a token of the word that matters most, else the first of the text."""
    own = [i for i, segment in enumerate(shown.segments) if segment is not None]
    most: WordEffect | None = max(shown.effects or (), key=lambda effect: abs(effect.change), default=None)
    for i in own:
        start, end = shown.offsets[i]
        if most is not None and shown.segments[i] == most.segment and start < most.end and end > most.start:
            return i
    return own[0] if own else 0


def _kept(packed: Packed, maps: int, n: int, truncated: bool) -> str:
    """Say what the page holds of the weights, and what it left out."""
    cut = " The text was cut at the model's longest." if truncated else ""
    made = f" Made by fusedbert {version()}, from the exported model's own weights."
    if packed.keep == n:
        return f"This page holds all {maps * n * n:,} weights: {maps} heads, {n} x {n} each.{cut}{made}"
    return (
        f"To stay small, this page leaves out weights: of each token's {n} it keeps the {packed.keep} largest in each of the "
        f"{maps} heads, which hold {packed.share:.0%} of all weight.{cut}{made}"
    )


def _fill(data: dict[str, Any]) -> str:
    """Put style, script and data into the template."""
    folder = importlib.resources.files("fusedbert.engine.explain") / "template"
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = "\n".join(['"use strict";', *((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)])
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    # In JSON these are the same letters; in the page they can end no element and begin none.
    escapes = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
    document = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(escapes)
    page = (folder / "page.html").read_text(encoding="utf-8")
    title = html.escape("".join(piece for piece, _ in data["texts"][0])[:60].strip() or "A text")
    parts = {"policy": policy, "title": f"{title} · attention", "style": style, "script": script, "data": document}
    head, *rest = page.split("{{")
    return head + "".join(parts[name] + tail for name, tail in (piece.split("}}", 1) for piece in rest))


def _hash(content: str) -> str:
    """Return a source expression of the content security policy that lets exactly this inline block in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
