"""Which rows run together: alike in length, so that little of a batch is padding, and not too many at once.

On the CPU 512 tokens are enough: the weights are then read once for many rows, and the activations still fit the caches, which
those of 4096 tokens do not (a fifth slower a token at 16 x 256; bench/NOTES.md). Padding costs as much as text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one batch.

    Attributes:
        tokens: Padded tokens at most, rows times the longest; one row may be longer.
        rows: Rows at most.
        waste: Share of a batch that may be padding before it is worth a batch of its own.
        free: Tokens of padding that are cheaper than another run of the graph.
    """

    tokens: int
    rows: int
    waste: float = 0.125
    free: int = 64


CPU_BUDGET = Budget(tokens=512, rows=64, waste=0.02, free=12)
CUDA_BUDGET = Budget(tokens=32768, rows=512)


def plan(lengths: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Cut rows into batches, the shortest first.

    Args:
        lengths: Tokens of each row.
        budget: Limits of a batch.

    Yields:
        Indices into ``lengths``; each index once.

    Example:
        >>> list(plan([5, 500, 6], Budget(tokens=1024, rows=8)))
        [[0, 2], [1]]
    """
    batch: list[int] = []
    filled = 0  # tokens of the batch that are no padding
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):  # stable: equal lengths keep their order
        length = lengths[index]
        padded = length * (len(batch) + 1)
        padding = padded - filled - length
        if batch and (padded > budget.tokens or len(batch) >= budget.rows or padding > max(budget.free, budget.waste * padded)):
            yield batch
            batch, filled = [], 0
        batch.append(index)
        filled += length
    if batch:
        yield batch


def pad(rows: Sequence[Row], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Fill rows up to the longest of them, on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 ``[batch, seq]``.
    """
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad_id, dtype=np.int64)  # [batch, seq]
    mask = np.zeros(shape, dtype=np.int64)  # [batch, seq]
    types = np.zeros(shape, dtype=np.int64)  # [batch, seq]
    for line, row in enumerate(rows):
        length = len(row.ids)
        ids[line, :length] = row.ids
        mask[line, :length] = 1
        types[line, :length] = row.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
