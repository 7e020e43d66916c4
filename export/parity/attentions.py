"""The gate of the attention weights: each within 1e-5 of the float64 reference, and exactly 0 on padding.

The logits alone would not tell: weights that go to an output in the wrong order, or those of another text of the batch,
leave them as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import ExportError

from .gates import batch_arrays, open_session
from .reference import Trace, forward

if TYPE_CHECKING:
    from .baseline import Subject

TOLERANCE = 1e-5  # of a weight
_LONGEST = 128  # tokens: weights grow with the square, and the reference holds them in float64


def gate_attentions(path: Path, subject: Subject) -> None:
    """Run the padded batches of short check texts, and compare each text's weights with the reference's.

    Args:
        path: The written graph.
        subject: The checkpoint, its check texts among it.

    Raises:
        ExportError: A weight is off by more than ``TOLERANCE``, or padding is attended to.
    """
    a, texts = subject.architecture, subject.checks.texts
    batches = [batch for batch in subject.checks.batches if max(len(texts[row].ids) for row in batch) <= _LONGEST]
    rows = sorted({row for batch in batches for row in batch})
    trace = Trace(attentions={})
    forward(a, subject.weights, [texts[row] for row in rows], trace)
    recorded = trace.attentions or {}
    expected = {row: _by_layer(recorded[place], a.layers) for place, row in enumerate(rows)}
    session = open_session(path)
    for batch in batches:
        found = _weights(session, batch_arrays([texts[row] for row in batch], a.padding_id))
        for place, row in enumerate(batch):
            _compare(found[:, place], expected[row], path.name)


def _by_layer(heads: list[NDArray[np.float64]], layers: int) -> NDArray[np.float64]:
    """Lay out what the reference recorded, head by head, as ``[layers, heads, query, key]``."""
    n = len(heads[0])
    return np.stack(heads).reshape(layers, -1, n, n)


def _weights(session: Any, arrays: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """Run one batch: ``[layers, batch, heads, query, key]``."""
    declared = {item.name for item in session.get_inputs()}
    feeds = {name: array for name, array in arrays.items() if name in declared}
    return np.asarray(session.run(["attentions"], feeds)[0])


def _compare(found: NDArray[np.float32], expected: NDArray[np.float64], file: str) -> None:
    """Compare one text's weights, ``[layers, heads, longest, longest]`` with padding, ``[layers, heads, n, n]`` without."""
    n = expected.shape[-1]
    difference = float(np.abs(found[..., :n, :n] - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{file} gives an attention weight that is off by {difference:.2g}, at most {TOLERANCE:g} is accepted: "
            "please report the checkpoint's config.json"
        )
    if (padding := float(found[..., :n, n:].max(initial=0.0))) != 0.0:
        raise ExportError(f"{file} gives padding an attention weight of {padding:.2g}, expected 0: please report this")
