"""Tables of RoPE (Su et al. 2021): the cosines and sines by which queries and keys are turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rope_tables(theta: float, head_size: int, positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin of ``position * theta^(-2 j / d)``, ``[positions, d / 2]`` each.

    Frequencies and angles are rounded to float32, as in transformers: far from the start a model was trained with that.
    """
    frequencies = (1.0 / theta ** (np.arange(0, head_size, 2) / head_size)).astype(np.float32)
    angles = (np.arange(positions, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
