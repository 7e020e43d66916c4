"""Attention weights of a text, the effect of each word, and a page that shows both.

Example:
    >>> shown = clf.attentions("Action gets results")
    >>> shown.weights[0, 2].shape  # layer 1, head 3: [query, key]
    (5, 5)
    >>> characters = Path("page.html").write_text(shown.to_html(), encoding="utf-8")
"""

from __future__ import annotations

from .attentions import Attentions
from .words import WordEffect

__all__ = ["Attentions", "WordEffect"]
