"""The task ``check``: compute the logits of given token ids, for the other side to compare with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.batches import Batch
from .state import State


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Compute logits.

    Args:
        state: Holds the loaded contender.
        request: ``batches``, each with ``ids`` and ``types``, a list for every row; ``pad``, the id that fills shorter ones.

    Returns:
        ``logits``, for each batch a list of rows.

    Raises:
        ValueError: The contender gave logits of another shape than ``[rows, labels]``.
    """
    contender = state.engine()
    found = []
    for part in request["batches"]:
        logits = np.asarray(contender.logits(pad(part["ids"], part["types"], request["pad"])))
        if logits.ndim != 2 or len(logits) != len(part["ids"]):
            raise ValueError(f"logits of shape {logits.shape} for {len(part['ids'])} texts")
        found.append(logits.astype(np.float64).tolist())
    return {"logits": found}


def pad(ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Lay rows out as a batch, the shorter ones filled on the right."""
    longest = max(map(len, ids))
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]  # [batch, longest]
    return Batch(
        input_ids=_filled(ids, longest, pad_id),
        attention_mask=np.array(mask, dtype=np.int64),
        token_type_ids=_filled(types, longest, 0),
    )


def _filled(rows: Sequence[Sequence[int]], longest: int, filler: int) -> NDArray[np.int64]:
    return np.array([[*row, *[filler] * (longest - len(row))] for row in rows], dtype=np.int64)  # [batch, longest]
