"""``Attentions``: what a model made of one text, as arrays, JSON, an npz file or a page."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, StorageError
from ..text.outputs import Floats

_FRAME = 760  # pixels of a notebook's cell
_PAGE, _LONG_PAGE = 2_000_000, 6_000_000  # bytes
_LONG = 128  # tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordEffect:
    """What leaving a word out changes.

    Attributes:
        word: The word, or the few neighbouring words of a long text that were left out together.
        start: Its first character in its text.
        end: The character after its last one.
        segment: 0 where it stands in the first text, 1 in the second.
        change: Predicted label's probability with it minus without it; a positive one speaks for the label. Of a
            regression, the predicted value's change.
    """

    word: str
    start: int
    end: int
    segment: int
    change: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attentions:
    """One text's attention weights, and the prediction that they belong to.

    Attributes:
        text: The text.
        text_pair: The second text of a pair.
        tokens: As the tokenizer names them, special ones included.
        readable: The same for people: without the tokenizer's own letters for spaces and bytes.
        offsets: First character of each token in its text, and the one after its last; ``(0, 0)`` for special ones.
        segments: 0 for tokens of the first text, 1 for those of the second, None for special ones.
        weights: Float32 ``[layers, heads, tokens, tokens]``: how much of each key (last axis) goes into each query's
            average; each row sums to 1.
        queries: Float32 ``[layers, heads, tokens, d]``.
        keys: Float32 ``[layers, heads, tokens, d]``.
        prediction: ``{"label", "score"}``, as the classifier returns it.
        probabilities: The score of each label; of a regression, its value.
        problem_type: The model's: ``regression``, ``single_label_classification`` or ``multi_label_classification``.
        truncated: Whether the text had more tokens than the model takes.
        effects: What leaving out each word changes; None where that was not asked for.
        function: What made the scores of the logits; ``none`` for a regression, and where they are the logits themselves.
    """

    text: str
    text_pair: str | None
    tokens: tuple[str, ...]
    readable: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    segments: tuple[int | None, ...]
    weights: Floats
    queries: Floats
    keys: Floats
    prediction: Mapping[str, Any]
    probabilities: Mapping[str, float]
    problem_type: str
    truncated: bool
    effects: tuple[WordEffect, ...] | None = None
    function: str | None = None

    def scores(self, layer: int, head: int) -> Floats:
        """Return a head's raw scores q.k, before the division by sqrt(d): float32 ``[query, key]``."""
        return np.asarray(self.queries[layer, head] @ self.keys[layer, head].T)

    def rollout(self) -> Floats:
        """Follow the attention through the layers (Abnar and Zuidema 2020, attention rollout).

        Each layer passes half of a token on as it is, by the residual connection, and half by the mean of its heads;
        the layers' matrices are multiplied.

        Returns:
            Float32 ``[tokens, tokens]``: the share of each input token (last axis) in each token's last state; rows sum to 1.
        """
        n = len(self.tokens)
        shares = np.eye(n)
        for layer in self.weights.astype(np.float64):
            shares = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(n)) @ shares  # [tokens, tokens]
        return shares.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return all but queries and keys as plain lists and numbers; weights to six digits after the point."""
        return {
            "text": self.text,
            "text_pair": self.text_pair,
            "prediction": dict(self.prediction),
            "probabilities": dict(self.probabilities),
            "truncated": self.truncated,
            "tokens": list(self.tokens),
            "offsets": [list(offset) for offset in self.offsets],
            "segments": list(self.segments),
            "effects": None if self.effects is None else [dataclasses.asdict(effect) for effect in self.effects],
            "weights": np.round(self.weights.astype(np.float64), 6).tolist(),
        }

    def to_json(self) -> str:
        """Return ``to_dict`` as one JSON document."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save_npz(self, path: str | os.PathLike[str]) -> None:
        """Write ``weights``, ``queries``, ``keys``, ``tokens``, ``offsets`` and ``segments`` (-1: special) for ``numpy.load``.

        Raises:
            StorageError: The file cannot be written.
        """
        target = Path(path)
        try:
            with target.open("wb") as file:
                np.savez_compressed(
                    file,
                    weights=self.weights,
                    queries=self.queries,
                    keys=self.keys,
                    tokens=np.array(self.tokens, dtype=np.str_),
                    offsets=np.array(self.offsets, dtype=np.int64),
                    segments=np.array([-1 if segment is None else segment for segment in self.segments], dtype=np.int8),
                )
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from None

    def to_html(self, *, max_bytes: int | None = None) -> str:
        """Return a page that shows it all: one file, which loads nothing.

        Args:
            max_bytes: Its size at most; None for 2 MB, and 6 MB of a text of more than 128 tokens. Where all weights do not
                fit, it keeps each token's largest, and says so.

        Raises:
            OptionError: ``max_bytes`` has no room for the page itself.
        """
        from .page import render  # reads the template, which other uses do without

        if max_bytes is None:
            max_bytes = _PAGE if len(self.tokens) <= _LONG else _LONG_PAGE
        elif isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
            raise OptionError(f"max_bytes is {max_bytes!r}: give a number of bytes")
        return render(self, max_bytes)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own that may run its script and nothing else."""
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe sandbox="allow-scripts" style="width:100%;height:{_FRAME}px;border:0" srcdoc="{page}"></iframe>'

    def __repr__(self) -> str:
        layers, heads, n, _ = self.weights.shape
        return f"Attentions({self.text[:40]!r}, {layers} layers x {heads} heads, {n} tokens, {self.prediction})"
