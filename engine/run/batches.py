"""Batches: the rows that run together, and their arrays on a GPU.

Rows of similar length share a batch, to save padding. On the CPU 512 tokens are enough: weights are read once for many rows,
and the activations fit the caches (bench/NOTES.md).

On a GPU texts, longest text and tokens are rounded up to a ladder (``Bucket``): few shapes occur, and buffers and CUDA graphs
are reused. Dummy texts of one token, whose logits are dropped, and unused token rows fill the rest.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..artifact import WINDOW_BLOCKS, WINDOW_TEXTS
from ..text.tokenizer import Row

LEAST_TOKENS = 16
FINE, COARSE = 4, 2  # steps between powers of two, as their logarithm: 16 for throughput, 4 where each shape is captured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one batch."""

    tokens: int  # padded, rows times the longest; a single row may be longer
    rows: int
    waste: float = 0.125  # share of padding
    free: int = 64  # padding tokens that are always allowed, because they cost less than another run


CPU_BUDGET = Budget(tokens=512, rows=64, waste=0.02, free=12)
CUDA_BUDGET = Budget(tokens=32768, rows=512)


def plan(lengths: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Group rows of these lengths into batches, the shortest first; yield their indices.

    Example:
        >>> list(plan([5, 500, 6], Budget(tokens=1024, rows=8)))
        [[0, 2], [1]]
    """
    batch: list[int] = []
    filled = 0  # tokens of the batch, without padding
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
    """The rounded-up size of a batch."""

    texts: int  # dummies included
    longest: int  # maximum tokens of a text
    tokens: int  # token rows, used and unused; at most ``texts * longest``


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Arrays for one run on a GPU."""

    arrays: Mapping[str, NDArray[np.int32]]  # the graph's inputs by name
    texts: int  # without dummies, which come last
    bucket: Bucket
    rows: Sequence[Row]  # of the texts

    @property
    def tokens(self) -> int:
        """Tokens to compute, dummies included."""
        return self.bucket.tokens

    @property
    def places(self) -> tuple[int, ...]:
        """The axes of all tokens: packed one, padded two."""
        size = self.bucket
        return (size.tokens,) if "cumulative_lengths" in self.arrays else (size.texts, size.longest)

    def own_tokens(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the rows' tokens, ``[tokens, labels]``, from the logits of all places."""
        lengths = [len(row.ids) for row in self.rows]
        if logits.ndim == 2:  # packed
            return logits[: sum(lengths)]
        return np.concatenate([text[:length] for text, length in zip(logits, lengths, strict=False)])


def round_up(number: int, least: int, fineness: int) -> int:
    """Round up to a ladder of ``2 ** fineness`` steps between powers of two, each at least ``least``.

    Example:
        >>> [round_up(n, 16, 2) for n in (3, 17, 100, 128, 130)]
        [16, 32, 112, 128, 160]
    """
    step = max(least, (1 << (max(number, 1).bit_length() - 1)) >> fineness)
    return -(-number // step) * step


def packed_bucket(lengths: Sequence[int], *, fineness: int, block: int = 1, padded: bool = False) -> Bucket:
    """Return the bucket of a packed batch, in whole blocks; each dummy text takes one token.

    Nearly all work depends only on the tokens. So texts and longest of a captured batch are rounded up to powers of two, and
    its shape recurs; but for a single text, whose longest is its tokens, and where the graph pads its scores (``padded``).
    """
    sides = 0 if fineness == COARSE and len(lengths) > 1 and not padded else fineness
    texts = round_up(len(lengths), 1, sides)
    longest = round_up(max(lengths), LEAST_TOKENS, sides)
    tokens = round_up(sum(lengths) + texts - len(lengths), LEAST_TOKENS, fineness)
    tokens = -(-min(tokens, texts * longest) // block) * block
    return Bucket(texts=texts, longest=max(longest, -(-tokens // texts)), tokens=tokens)


def padded_bucket(lengths: Sequence[int], *, fineness: int, max_length: int) -> Bucket:
    """Return the bucket of a padded batch, with rows of at most ``max_length`` tokens."""
    texts = round_up(len(lengths), 1, fineness)
    longest = min(round_up(max(lengths), LEAST_TOKENS, fineness), max_length)
    return Bucket(texts=texts, longest=longest, tokens=texts * longest)


def pack(rows: Sequence[Row], bucket: Bucket, pad_id: int, block: int = 1) -> Batch:
    """Lay out texts, none of them empty, one after the other in a bucket that fits them and the dummies of one token.

    Returns:
        int32 ``input_ids``, ``position_ids`` and ``token_type_ids`` ``[tokens]``, ``cumulative_lengths`` ``[texts + 1]``
        and ``token_offset`` ``[texts, longest]``: the index of each token in the padded batch, then those of the padding
        (``com.microsoft:PackedAttention``); for a ``block`` of several tokens also ``window_arrays``.

    Example:
        >>> rows = [Row(ids=[2, 7, 3], types=[0, 0, 0], truncated=False), Row(ids=[2, 3], types=[0, 0], truncated=False)]
        >>> batch = pack(rows, Bucket(texts=2, longest=4, tokens=5), 0)
        >>> batch.arrays["cumulative_lengths"].tolist(), batch.arrays["position_ids"].tolist()
        ([0, 3, 5], [0, 1, 2, 0, 1])
        >>> batch.arrays["token_offset"].tolist()
        [[0, 1, 2, 4], [5, 3, 6, 7]]
    """
    lengths, mask = _lengths(rows, bucket)
    bounds = np.zeros(bucket.texts + 1, dtype=np.int32)  # [texts + 1]
    np.cumsum(lengths, out=bounds[1:])
    positions = np.zeros(bucket.tokens, dtype=np.int32)  # [tokens]
    positions[: bounds[-1]] = np.arange(bounds[-1], dtype=np.int32) - np.repeat(bounds[:-1], lengths)
    offset = np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)]).astype(np.int32)
    arrays = {
        "input_ids": _flat([row.ids for row in rows], bucket.tokens, pad_id),
        "position_ids": positions,
        "token_type_ids": _flat(_segments(rows), bucket.tokens, 0),
        "token_offset": offset.reshape(bucket.texts, bucket.longest),
        "cumulative_lengths": bounds,
        **(window_arrays(bounds, bucket.tokens, block) if block > 1 else {}),
    }
    return Batch(arrays=arrays, texts=len(rows), bucket=bucket, rows=rows)


def window_arrays(bounds: NDArray[np.int32], tokens: int, block: int) -> dict[str, NDArray[np.int32]]:
    """Return int32 ``window_blocks`` ``[blocks, 4]`` and ``window_texts`` ``[blocks, 2 block]``.

    The first are the units of keys that a block sees: its two, one before, one behind. The second give each key's text,
    counted from 1, or 0 for keys beyond the first or last unit.

    Example:
        >>> arrays = window_arrays(np.array([0, 3, 4], dtype=np.int32), 4, 2)
        >>> arrays["window_blocks"].tolist(), arrays["window_texts"].tolist()
        ([[0, 0, 1, 2], [1, 2, 3, 3]], [[0, 1, 1, 1], [1, 1, 2, 0]])
    """
    units = np.arange(-1, 2 * (tokens // block) - 1, 2, dtype=np.int32)[:, None] + np.arange(4, dtype=np.int32)
    texts = np.searchsorted(bounds, np.arange(tokens), side="right").astype(np.int32)  # unused rows are one more text
    around = np.pad(texts.reshape(-1, block // 2), ((1, 1), (0, 0)))[units + 1]  # [blocks, 4, block / 2]
    return {WINDOW_BLOCKS: np.clip(units, 0, units.max() - 1), WINDOW_TEXTS: around.reshape(len(units), -1)}


def pad_to(rows: Sequence[Row], bucket: Bucket, pad_id: int) -> Batch:
    """Pad rows on the right: int32 ``input_ids``, ``attention_mask`` and ``token_type_ids`` ``[texts, longest]``."""
    lengths, mask = _lengths(rows, bucket)
    ids, types = np.full(mask.shape, pad_id, dtype=np.int32), np.zeros(mask.shape, dtype=np.int32)
    tokens = int(lengths.sum())
    ids[mask] = _flat([row.ids for row in rows], tokens, pad_id)
    if segments := _segments(rows):
        types[mask] = _flat(segments, tokens, 0)
    arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int32), "token_type_ids": types}
    return Batch(arrays=arrays, texts=len(rows), bucket=bucket, rows=rows)


def _lengths(rows: Sequence[Row], bucket: Bucket) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return each text's length ``[texts]``, 1 for a dummy, and the mask ``[texts, longest]``, True for tokens."""
    lengths = np.ones(bucket.texts, dtype=np.int32)
    lengths[: len(rows)] = [len(row.ids) for row in rows]
    return lengths, np.arange(bucket.longest, dtype=np.int32) < lengths[:, None]


def _segments(rows: Sequence[Row]) -> list[list[int]]:
    """Return the segments of each row's tokens; an empty list if all are 0."""
    return [row.types for row in rows] if any(row.types[-1] or any(row.types) for row in rows) else []


def _flat(parts: Sequence[Sequence[int]], size: int, fill: int) -> NDArray[np.int32]:
    """Join lists into an array of ``size``, filled up with ``fill``."""
    array = np.full(size, fill, dtype=np.int32)
    count = sum(map(len, parts))
    array[:count] = np.fromiter(itertools.chain.from_iterable(parts), dtype=np.int32, count=count)
    return array
