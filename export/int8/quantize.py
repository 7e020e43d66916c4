"""From fp32 weights to int8: constant activation scales, so that a text's score does not depend on its batch.

A product x W + b is computed as (q - z) W8 * (scale_x * scale_w) + b', with q = round(x / scale_x) + z in eight bits. A scale
for the whole of x is coarse where a few channels are far larger than the rest, as they are in BERT. What is done about it,
all of it folded into weights that are there anyway, but for one Mul at each of the two residuals of a layer:

* Shift: the middle of each channel's range is taken from the input and added, times W, to the bias.
* Smoothing (SmoothQuant, Xiao et al. 2022): each channel of the input is divided by s, each row of W multiplied by it. Behind
  a normalization it goes into gain and shift, and the residual is multiplied back; between the values and the output
  projection it goes into the values' scales, because the rows of a softmax sum to 1.
* Stairs, before the second feed-forward product, where smoothing would cost a pass of its own: neurons far larger than the
  rest are split into copies. Eight bits saturate at C, so that the neuron itself gives min(act(x), C); its k-th copy
  computes act(x - k C) with the same weights and a lower bias, and their sum is act(x): exactly for ReLU, for GELU to
  0.2 near the joins where C is 3 or more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.weights import Layer

Array = NDArray[np.float32]
ALPHAS = (0.7, 0.8, 0.9, 1.0)  # SmoothQuant's migration strengths that are tried
COLUMNS = 512  # outputs of a product on which they are compared
HEADROOM = 1.1  # the range that is kept over the one that calibration saw, for texts that go beyond it
COPIES = 16  # stairs of a layer for each 1024 neurons; a multiple of what the product's kernel takes at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """How the input of a product becomes eight bits: ``q = round((x - shift) / smooth / scale) + zero_point``.

    Attributes:
        scale: Of the whole input.
        zero_point: 0 to 255.
        shift: ``[in]``, folded into what comes before and after.
        smooth: ``[in]``, folded likewise.
    """

    scale: float
    zero_point: int
    shift: Array
    smooth: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """How the activations of the feed-forward become eight bits.

    Attributes:
        scale: Of the whole input of the second product.
        zero_point: 0 to 255.
        neurons: ``[copies]``, the neuron that each copy repeats.
        steps: ``[copies]``, what is taken from its bias.
    """

    scale: float
    zero_point: int
    neurons: NDArray[np.int64]
    steps: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """The four inputs of a layer's products: of queries, keys and values, of the output projection, of both feed-forwards."""

    query: Site
    attention_output: Site
    intermediate: Site
    output: Stairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """What calibration saw of one input: its range by channel, ``[in]`` each, and some rows ``[n, in]``."""

    low: Array
    high: Array
    rows: Array


def plan_layer(layer: Layer, ranges: Sequence[Range]) -> LayerPlan:
    """Fit a layer's activation scales to what calibration saw of the inputs of its products, in ``LayerPlan``'s order."""
    query, context, intermediate, output = ranges
    joint = np.concatenate([layer.query.weight, layer.key.weight, layer.value.weight], axis=1)
    return LayerPlan(
        query=fit_site(query, joint),
        attention_output=fit_site(context, layer.attention_output.weight),
        intermediate=fit_site(intermediate, layer.intermediate.weight),
        output=fit_stairs(output),
    )


def fit_site(seen: Range, weight: Array) -> Site:
    """Shift each channel to the middle of its range, then smooth by the alpha that leaves the product the least error.

    Args:
        seen: The input's range.
        weight: ``[in, out]``.
    """
    shift = ((seen.low + seen.high) / 2).astype(np.float32)  # [in]
    reach = np.maximum(seen.high - shift, 1e-4) * HEADROOM
    strength = np.maximum(np.abs(weight).max(axis=1), 1e-6)
    weight = weight[:, :: -(-weight.shape[1] // COLUMNS)]  # every nth output is enough to tell them apart
    centred = seen.rows - shift  # [n, in]
    exact = centred @ weight  # [n, out]
    best: tuple[float, Site] | None = None
    for alpha in ALPHAS:
        smooth = (reach**alpha / strength ** (1 - alpha)).astype(np.float32)
        smooth /= smooth.mean()
        scale, zero_point = eight_bits(-float((reach / smooth).max()), float((reach / smooth).max()))
        site = Site(scale=scale, zero_point=zero_point, shift=shift, smooth=smooth)
        w8, by_column = quantize_weight(weight * smooth[:, None])
        q = np.clip(np.rint(centred / smooth / scale) + zero_point, 0, 255) - zero_point  # [n, in]
        error = float(np.square((q.astype(np.float32) @ w8.astype(np.float32)) * (scale * by_column) - exact).mean())
        if best is None or error < best[0]:
            best = (error, site)
    assert best is not None  # ALPHAS is not empty
    return best[1]


def fit_stairs(seen: Range) -> Stairs:
    """Find the least ceiling at which the neurons that reach beyond it need no more copies than there may be.

    A neuron that reaches ``high`` needs ``ceil(high / C) - 1`` copies.
    """
    high = np.maximum(seen.high, 0) * HEADROOM
    budget = COPIES * max(1, len(high) // 1024)
    below, ceiling = 0.0, max(float(high.max()), 1e-6)
    for _ in range(50):
        middle = (below + ceiling) / 2
        if middle > 0 and np.maximum(np.ceil(high / middle) - 1, 0).sum() <= budget:
            ceiling = middle
        else:
            below = middle
    copies = np.maximum(np.ceil(high / ceiling) - 1, 0).astype(np.int64)  # [intermediate]
    steps = [ceiling * k for count in copies for k in range(1, count + 1)]
    _, zero_point = eight_bits(float(seen.low.min()), ceiling)
    return Stairs(
        scale=ceiling / (255 - zero_point),  # so that the highest of the eight bits is the ceiling, and the stairs join
        zero_point=zero_point,
        neurons=np.repeat(np.arange(len(high)), copies),
        steps=np.asarray(steps, dtype=np.float32),
    )


def eight_bits(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of unsigned eight bits that hold ``low`` to ``high``, and zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-12)
    return scale, int(np.clip(round(-low / scale), 0, 255))


def quantize_weight(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Round a weight ``[in, out]`` to signed eight bits, with a scale for each output ``[out]``."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 127
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)
