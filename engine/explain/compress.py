"""Attention weights in few bytes: logarithms in steps, where needed each row's largest alone, deflated.

A weight is exp(z - c), with z = q.k / sqrt(d) and c, one number a row, the logarithm of the row's sum of exp(z). Kept are c
as float32 and c - z in whole steps, so that the page can show z, q.k and the weight of any pair from one number. At
1024 steps to a factor of e a weight is right to 0.05 %, and one of 50 % to 0.03 points.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .attentions import Attentions

FINE, COARSE = 1024, 256  # steps to a factor of e
_MOST = 0xFFFF  # steps: weights below exp(-64), or exp(-256) in coarse steps, are kept as that
_LEAST = 3  # weights of a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Weights as the page reads them.

    Attributes:
        data: Base64 of a zlib stream: c, float32 ``[rows]``, a row for each layer, head and query; where ``keep`` is less
            than the number of tokens, each weight's key as its distance from the one before, uint16 ``[rows, keep]``, the
            low bytes of all and then the high bytes; then c - z in steps, the same way.
        steps: Steps to a factor of e.
        keep: Weights of a row.
        share: Share of all weight that they hold, 0 to 1.
    """

    data: str
    steps: int
    keep: int
    share: float


def pack(shown: Attentions, budget: int) -> Packed:
    """Pack all weights, or as many of each row as fit.

    Args:
        shown: The weights, with queries and keys.
        budget: Bytes of ``data`` at most.

    Raises:
        OptionError: Not even the few largest of each row fit.
    """
    n, d = shown.queries.shape[-2:]
    z = shown.queries @ shown.keys.swapaxes(-1, -2) / np.float32(np.sqrt(d))  # [layers, heads, query, key]
    z = z.reshape(-1, n)  # [rows, key]
    top = z.max(axis=-1, keepdims=True)
    c = top + np.log(np.exp(z - top).sum(axis=-1, keepdims=True))  # [rows, 1]
    below = c - z  # [rows, key]
    fixed = c.astype("<f4").tobytes()
    # What cannot fit is not tried: deflated, a weight takes a byte or more, and two with its key.
    keep = n if below.size <= budget else max(_LEAST, min(n, int(budget / (2.2 * len(z)))))
    for steps in (FINE, COARSE):
        if keep == n and len(data := _deflate(fixed + _planes(below, steps))) <= budget:
            return Packed(data=data, steps=steps, keep=n, share=1.0)
    while keep >= _LEAST:
        keys = np.sort(np.argpartition(below, keep - 1, axis=-1)[:, :keep], axis=-1)  # [rows, keep], ascending
        chosen = np.take_along_axis(below, keys, axis=-1)
        data = _deflate(fixed + _planes(np.diff(keys, axis=-1, prepend=0), 1) + _planes(chosen, COARSE))
        if len(data) <= budget:
            return Packed(data=data, steps=COARSE, keep=keep, share=float(np.exp(-chosen).sum() / len(z)))
        keep = min(keep - 1, int(0.98 * keep * budget / len(data)))
    raise OptionError(f"max_bytes leaves {budget} bytes for the weights of {n} tokens, too few: raise it, or shorten the text")


def _planes(values: NDArray[np.floating] | NDArray[np.integer], steps: int) -> bytes:
    """Round to whole steps, as uint16: first the low bytes of all, then the high bytes, which deflate well together."""
    whole = np.clip(np.rint(values * steps), 0, _MOST).astype("<u2").reshape(-1)
    bytes_of: NDArray[np.uint8] = whole.view(np.uint8).reshape(-1, 2)  # [values, low and high]
    return bytes_of.T.tobytes()


def _deflate(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")
