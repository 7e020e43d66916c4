"""Relative positions in the scores of attention, read from ``config.json`` as transformers reads them.

DeBERTa (He et al. 2021) adds two products to that of query i and key j, with tables of vectors for the distance i - j:
``c2p`` of the query and a vector, ``p2c`` of the key and another one. MPNet (Song et al. 2020) adds a number for each
distance and head, the same in all layers (``bias``), as T5 does (Raffel et al. 2020). Far distances share rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError, shown

Distances = NDArray[np.int64]
C2P, P2C, BIAS = "c2p", "p2c", "bias"
REACH = 8192  # tokens of the longest text of a model whose positions are all relative
MPNET_BUCKETS, _MPNET_FAR = 32, 128  # both are fixed in transformers' code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relative:
    """The relative positions of a model."""

    terms: tuple[str, ...]  # of ``C2P`` and ``P2C``, or ``BIAS``
    rows: int  # of the checkpoint's table
    buckets: int = 0  # DeBERTa's position_buckets; 0 if each distance has a row
    furthest: int = 0  # distance of its last bucket
    shared: bool = False  # tables are projected by the layer's queries and keys, not by layers made for them
    normalized: bool = False  # the table has a normalization

    def row(self, distance: Distances) -> Distances:
        """Return the row of the table for each distance ``i - j``."""
        if BIAS in self.terms:
            return _mpnet_row(distance)
        half = self.rows // 2
        bucket = _log_bucket(distance, self.buckets, self.furthest) if self.buckets else distance
        return np.clip(bucket + half, 0, self.rows - 1)

    def columns(self) -> tuple[Distances, Distances]:
        """Return the rows in the order of distances, and which of them each distance from ``1 - REACH`` up has."""
        rows = self.row(np.arange(1 - REACH, REACH))  # [2 REACH - 1]
        new = np.concatenate([[True], rows[1:] != rows[:-1]])
        return rows[new], np.cumsum(new) - 1


def _log_bucket(distance: Distances, buckets: int, furthest: int) -> Distances:
    """DeBERTa's buckets: one for each distance up to half of them, and beyond that by its logarithm."""
    half = buckets // 2
    far = np.abs(distance) > half
    apart = np.where(far, np.abs(distance), half).astype(np.float32)  # as in transformers
    share = _log(apart / np.float32(half)) / _log(np.float32((furthest - 1) / half))
    beyond = np.ceil(share * np.float32(half - 1)) + half
    return np.where(far, beyond * np.sign(distance), distance).astype(np.int64)


def _log(x: Any) -> Any:
    """The logarithm, rounded once to float32: NumPy's own is at times a unit off, and then a bucket begins elsewhere."""
    return np.log(x.astype(np.float64)).astype(np.float32)


def _mpnet_row(distance: Distances) -> Distances:
    """T5's buckets: half of them for each sign; of these half for near distances, one each."""
    half, near = MPNET_BUCKETS // 2, MPNET_BUCKETS // 4
    apart = np.abs(distance)
    share = np.log(np.maximum(apart, 1).astype(np.float32) / near) / np.float32(math.log(_MPNET_FAR / near))
    far = np.minimum(near + (share * np.float32(half - near)).astype(np.int64), half - 1)
    return np.where(distance < 0, half, 0) + np.where(apart < near, apart, far)


def read_relative(config: Mapping[str, Any], positions: int) -> tuple[Relative | None, int]:
    """Return DeBERTa's relative positions, and how many products scores are the sum of; raise ``CheckpointError``."""
    kinds = config.get("pos_att_type") or ()
    if isinstance(kinds, str):
        kinds = [kind.strip() for kind in kinds.lower().split("|")]
    if not isinstance(kinds, list | tuple) or any(kind not in (C2P, P2C, "") for kind in kinds):  # "c2p|" is saved with ""
        expected = "expected c2p, p2c, both or none"
        raise CheckpointError(f"config.json has pos_att_type = {shown(kinds)}, {expected}: mend config.json")
    terms = tuple(kind for kind in (C2P, P2C) if kind in kinds)
    products = 1 + len(terms)  # transformers counts them also where positions are not relative
    if not _flag(config, "relative_attention", False):
        return None, products
    furthest, buckets = _number(config, "max_relative_positions"), _number(config, "position_buckets")
    furthest = positions if furthest < 1 else furthest
    buckets = max(buckets, 0)
    if buckets and (buckets < 4 or furthest - 1 <= buckets // 2):
        raise CheckpointError(
            f"config.json has position_buckets = {buckets} for {furthest} positions, built directly are 4 or more, and fewer "
            "than twice the positions less 2: try --via optimum"
        )
    norms = config.get("norm_rel_ebd", "none")
    names = [name.strip() for name in norms.lower().split("|")] if isinstance(norms, str) else []
    if not names or any(name not in ("none", "layer_norm") for name in names):
        raise CheckpointError(f"config.json has norm_rel_ebd = {shown(norms)}, expected none or layer_norm: mend config.json")
    shared, rows = _flag(config, "share_att_key", False), 2 * (buckets or furthest)
    normalized = "layer_norm" in names
    found = Relative(terms=terms, rows=rows, buckets=buckets, furthest=furthest, shared=shared, normalized=normalized)
    return found if terms else None, products  # without terms nothing is added


def read_bias(config: Mapping[str, Any]) -> Relative:
    """Return MPNet's relative positions; raise ``CheckpointError`` for a table of too few rows."""
    rows = config.get("relative_attention_num_buckets", MPNET_BUCKETS)
    if type(rows) is not int or rows < MPNET_BUCKETS:
        raise CheckpointError(
            f"config.json has relative_attention_num_buckets = {shown(rows)}, expected {MPNET_BUCKETS}: mend config.json"
        )
    return Relative(terms=(BIAS,), rows=rows)


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json has {name} = {shown(value)}, expected true or false: mend config.json")
    return value


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name, -1)
    if type(value) is not int:
        raise CheckpointError(f"config.json has {name} = {shown(value)}, expected an integer: mend config.json")
    return value
