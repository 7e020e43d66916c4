"""The host's plan for packed texts: their tokens one after the other, and where each text begins and ends.

Nothing is padded inside a batch. What is rounded up is the batch as a whole: texts, longest text and tokens go to the next
step of a ladder (``Bucket``), so that few shapes come up, their buffers are reused, and a CUDA graph that was captured
for one shape serves its neighbours. The room that is left is filled by texts of one token, whose logits are dropped, and
by rows that belong to no text.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Row

LEAST_TOKENS = 16
FINE, COARSE = 4, 2  # steps between powers of two, as their logarithm: 16 for throughput, 4 where each shape is captured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
    """The size that a batch is rounded up to.

    Attributes:
        texts: Texts, fillers included.
        longest: Tokens of the longest text at most.
        tokens: Rows of all texts together, and of none; at most ``texts * longest``.
    """

    texts: int
    longest: int
    tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Arrays for one run, and how many of the logits' rows are wanted.

    Attributes:
        arrays: The graph's inputs by name.
        texts: Texts that are no fillers; they come first.
        bucket: The shape.
        rows: The texts.
    """

    arrays: Mapping[str, NDArray[np.int32]]
    texts: int
    bucket: Bucket
    rows: Sequence[Row]

    @property
    def tokens(self) -> int:
        """Tokens that the graph will compute, fillers included."""
        return self.bucket.tokens


def round_up(number: int, least: int, fineness: int) -> int:
    """Round up to a step of a ladder with ``2 ** fineness`` steps between powers of two, none smaller than ``least``.

    Example:
        >>> [round_up(n, 16, 2) for n in (3, 17, 100, 128, 130)]
        [16, 32, 112, 128, 160]
    """
    step = max(least, (1 << (max(number, 1).bit_length() - 1)) >> fineness)
    return -(-number // step) * step


def padding_share(lengths: Sequence[int]) -> float:
    """Return the share of padding that a padded batch of these texts would have, 0 to 1.

    Example:
        >>> padding_share([10, 20])
        0.25
    """
    return 1.0 - sum(lengths) / (len(lengths) * max(lengths))


def packed_bucket(lengths: Sequence[int], *, fineness: int) -> Bucket:
    """Round a batch up, in packed layout; one token is kept for each filler."""
    texts = round_up(len(lengths), 1, fineness)
    longest = round_up(max(lengths), LEAST_TOKENS, fineness)
    tokens = round_up(sum(lengths) + texts - len(lengths), LEAST_TOKENS, fineness)
    return Bucket(texts=texts, longest=longest, tokens=min(tokens, texts * longest))


def padded_bucket(lengths: Sequence[int], *, fineness: int, max_length: int) -> Bucket:
    """Round a batch up, in padded layout; no row gets longer than the position table."""
    texts = round_up(len(lengths), 1, fineness)
    longest = min(round_up(max(lengths), LEAST_TOKENS, fineness), max_length)
    return Bucket(texts=texts, longest=longest, tokens=texts * longest)


def pack(rows: Sequence[Row], bucket: Bucket, pad_id: int) -> Batch:
    """Lay texts one after the other.

    Args:
        rows: The texts; at least one, none empty.
        bucket: The shape; it has room for them and for one token of each filler.
        pad_id: Token of the fillers.

    Returns:
        int32 ``input_ids``, ``position_ids`` and ``token_type_ids`` ``[tokens]``, ``cumulative_lengths`` ``[texts + 1]``
        and ``token_offset`` ``[texts, longest]``: where each row stands in the padded batch, then the places of the padding
        (``com.microsoft:PackedAttention``).

    Example:
        >>> rows = [Row(ids=[2, 7, 3], types=[0, 0, 0], truncated=False), Row(ids=[2, 3], types=[0, 0], truncated=False)]
        >>> batch = pack(rows, Bucket(texts=2, longest=4, tokens=5), 0)
        >>> batch.arrays["cumulative_lengths"].tolist(), batch.arrays["position_ids"].tolist()
        ([0, 3, 5], [0, 1, 2, 0, 1])
        >>> batch.arrays["token_offset"].tolist()
        [[0, 1, 2, 4], [5, 3, 6, 7]]
    """
    lengths = np.ones(bucket.texts, dtype=np.int32)  # [texts]; fillers keep the one
    lengths[: len(rows)] = [len(row.ids) for row in rows]
    bounds = np.zeros(bucket.texts + 1, dtype=np.int32)  # [texts + 1]
    np.cumsum(lengths, out=bounds[1:])
    places = np.arange(bucket.longest, dtype=np.int32) < lengths[:, None]  # [texts, longest], True where a token stands
    flat = places.ravel()
    positions = np.zeros(bucket.tokens, dtype=np.int32)  # [tokens]
    positions[: bounds[-1]] = np.arange(bounds[-1], dtype=np.int32) - np.repeat(bounds[:-1], lengths)
    offset = np.concatenate([np.flatnonzero(flat), np.flatnonzero(~flat)]).astype(np.int32)
    types = [row.types for row in rows] if any(row.types[-1] or any(row.types) for row in rows) else []
    arrays = {
        "input_ids": _flat([row.ids for row in rows], bucket.tokens, pad_id),
        "position_ids": positions,
        "token_type_ids": _flat(types, bucket.tokens, 0),
        "token_offset": offset.reshape(bucket.texts, bucket.longest),
        "cumulative_lengths": bounds,
    }
    return Batch(arrays=arrays, texts=len(rows), bucket=bucket, rows=rows)


def pad_to(rows: Sequence[Row], bucket: Bucket, pad_id: int) -> Batch:
    """Fill rows up on the right to a bucket's shape; a filler is a text of one token.

    Returns:
        int32 ``input_ids``, ``attention_mask`` and ``token_type_ids`` ``[texts, longest]``.
    """
    shape = (bucket.texts, bucket.longest)
    lengths = np.ones(bucket.texts, dtype=np.int32)
    lengths[: len(rows)] = [len(row.ids) for row in rows]
    mask = np.arange(bucket.longest, dtype=np.int32) < lengths[:, None]  # [texts, longest]
    ids, types = np.full(shape, pad_id, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    real = int(lengths[: len(rows)].sum())
    ids[: len(rows)][mask[: len(rows)]] = _flat([row.ids for row in rows], real, pad_id)
    if any(row.types[-1] or any(row.types) for row in rows):
        types[: len(rows)][mask[: len(rows)]] = _flat([row.types for row in rows], real, 0)
    arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int32), "token_type_ids": types}
    return Batch(arrays=arrays, texts=len(rows), bucket=bucket, rows=rows)


def _flat(parts: Sequence[Sequence[int]], size: int, fill: int) -> NDArray[np.int32]:
    """Join lists into an array of ``size``; what they leave is ``fill``."""
    array = np.full(size, fill, dtype=np.int32)
    count = sum(map(len, parts))
    array[:count] = np.fromiter(itertools.chain.from_iterable(parts), dtype=np.int32, count=count)
    return array
