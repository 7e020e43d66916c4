"""Which plots a document has, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import bars, latency, load, ratio
from .document import entries
from .figure import Figure


def figures(document: Mapping[str, Any]) -> list[Figure]:
    """Return the plots that the document's figures allow: the main one, the ratios to the peers, then the rest."""
    contenders = entries(document)
    kind = document.get("kind")
    own: list[Figure] = []
    if kind == "latency":
        own = latency.figures(contenders)
    elif kind == "corpus":
        own = bars.corpus_figures(contenders)
    elif kind == "load":
        own = load.figures(document, contenders)
    elif kind == "startup":
        own = bars.startup_figures(contenders)
    ratios = ratio.figures(document, contenders)
    return [*own[:1], *ratios, *own[1:]]
