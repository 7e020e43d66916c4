"""Seeing the attention: a text's weights of every layer and head, what they do not say, and a page that shows both.

Example:
    >>> shown = clf.attentions("Action gets results")
    >>> shown.weights[0, 2].shape  # layer 1, head 3: [query, key]
    (5, 5)
    >>> characters = Path("page.html").write_text(shown.to_html(), encoding="utf-8")
"""

from __future__ import annotations

from .attentions import Attentions, WordEffect

__all__ = ["Attentions", "WordEffect"]
