"""Int8 weights: quantization parameters fitted to calibration data, and a checkpoint's weights rounded by them.

A product x W + b is computed as (q - z) W8 * (scale_x * scale_w) + b', with q = round(x / scale_x) + z in uint8. Activation
scales are constants, so that a text's score does not depend on its batch. A few channels of BERT are far larger than the rest,
so x is transformed first, at the cost of one Mul at each residual:

* Shift: the middle of each channel's range moves from the input, times W, into the bias.
* Smoothing (SmoothQuant, Xiao et al. 2022): each channel of the input is divided by s, each row of W multiplied by it. It is
  folded into the gamma and beta before, or into the values' scales, because the rows of a softmax sum to 1.
* Smoothing of a gated feed-forward's neurons is folded into the gate.
* Outlier channel splitting (OCS, Zhao et al. 2019) of the largest neurons before the second feed-forward product. Uint8
  saturates at C, so the neuron gives min(act(x), C), and its k-th copy act(x - k C) by a lower bias. Their sum is act(x): exact
  for ReLU, within 0.2 near the joins for GELU. So C is at least 3 there, beyond most neurons, or nothing is split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.weights import Array, Dense, Embeddings, Head, Layer, Norm, Weights
from ..biases import fold_biases

ALPHAS = (0.7, 0.8, 0.9, 1.0)  # migration strengths of SmoothQuant that are tried
COLUMNS = 512  # outputs of a product on which they are compared
HEADROOM = 1.1  # of the calibrated range, for texts that go beyond it
SPLITS = 16  # copies of a layer for each 1024 neurons; a multiple of what the product's kernel takes at once
JOIN = 3.0  # least ceiling of a split GELU: below it the joins cost more than rounding, see bench/NOTES.md
SIXTEEN = 16  # neurons of a gated feed-forward that a panel has; their number is rounded up
FOUR = 4  # inputs that the instruction behind a uint8 product takes at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantParams:
    """Scale and zero point of uint8: ``q = round(x / scale) + zero_point``."""

    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothedParams(QuantParams):
    """Parameters of ``(x - shift) / smooth``, ``[in]`` each."""

    shift: Array
    smooth: Array


PLAIN = SmoothedParams(scale=1.0, zero_point=0, shift=np.zeros(1, np.float32), smooth=np.ones(1, np.float32))
"""Parameters of a residual that is neither shifted nor smoothed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitParams(QuantParams):
    """Parameters of split neurons: the neuron of each copy, and the offset of its bias, ``[copies]``."""

    neurons: NDArray[np.int64]
    offsets: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerParams:
    """Parameters of the inputs of a layer's products."""

    query: SmoothedParams
    attention_output: SmoothedParams
    intermediate: SmoothedParams
    output: SplitParams | SmoothedParams  # smoothed behind a gate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """Calibration data of one input: the range of each channel ``[in]``, and some rows ``[n, in]``."""

    low: Array
    high: Array
    rows: Array


def fit_layers(layer: Layer, observed: Sequence[Sequence[Observed]], activation: str) -> list[LayerParams]:
    """Fit the layers that have these weights; ``observed`` has the inputs of each in the order of ``LayerParams``.

    What changes the weights, smoothing and split neurons, is the same in all, so that their int8 weights are equal.
    """
    query, context, intermediate, output = zip(*observed, strict=True)
    joint = np.concatenate([layer.query.weight, layer.key.weight, layer.value.weight], axis=1)
    inner = layer.intermediate.weight
    if layer.gate is not None:
        inner = np.concatenate([inner, layer.gate.weight], axis=1)
    outputs: Sequence[SplitParams | SmoothedParams] = (
        fit_split(output, least=0.0 if activation == "relu" else JOIN)
        if layer.gate is None
        else fit_smoothed(output, layer.output.weight, shifted=False)
    )
    fitted = zip(
        fit_smoothed(query, joint),
        fit_smoothed(context, layer.attention_output.weight),
        fit_smoothed(intermediate, inner),
        outputs,
        strict=True,
    )
    return [LayerParams(query=q, attention_output=c, intermediate=i, output=o) for q, c, i, o in fitted]


def fit_smoothed(observed: Sequence[Observed], weight: Array, *, shifted: bool = True) -> list[SmoothedParams]:
    """Fit the input of a product with ``weight`` ``[in, out]``, in each layer that has it, by the best of ``ALPHAS``."""
    shifts = [((each.low + each.high) / 2).astype(np.float32) for each in observed]  # the middle, [in]
    shifts = shifts if shifted else [np.zeros_like(shift) for shift in shifts]
    lows = [np.minimum(each.low - shift, -1e-4) * HEADROOM for each, shift in zip(observed, shifts, strict=True)]
    highs = [np.maximum(each.high - shift, 1e-4) * HEADROOM for each, shift in zip(observed, shifts, strict=True)]
    reach = _joint([np.maximum(-low, high) for low, high in zip(lows, highs, strict=True)])  # [in]
    strength = np.maximum(np.abs(weight).max(axis=1), 1e-6)
    weight = weight[:, :: -(-weight.shape[1] // COLUMNS)]  # every nth output is enough to compare them
    centred = [each.rows - shift for each, shift in zip(observed, shifts, strict=True)]  # [n, in]
    exact = [rows @ weight for rows in centred]  # [n, out]
    powers = [max(float(np.square(rows).mean()), 1e-30) for rows in exact]  # an error counts as a share of its layer's results
    best: tuple[float, list[SmoothedParams]] | None = None
    for alpha in ALPHAS:
        smooth = (reach**alpha / strength ** (1 - alpha)).astype(np.float32)
        smooth /= smooth.mean()
        w8, by_column = quantize_weight(weight * smooth[:, None])
        error, fitted = 0.0, []
        for i, shift in enumerate(shifts):
            p = fit_range(float((lows[i] / smooth).min()), float((highs[i] / smooth).max()))
            q = np.clip(np.rint(centred[i] / smooth / p.scale) + p.zero_point, 0, 255) - p.zero_point  # [n, in]
            off = (q.astype(np.float32) @ w8.astype(np.float32)) * (p.scale * by_column) - exact[i]
            error += float(np.square(off).mean()) * (powers[0] / powers[i])
            fitted.append(SmoothedParams(scale=p.scale, zero_point=p.zero_point, shift=shift, smooth=smooth))
        if best is None or error < best[0]:
            best = error, fitted
    assert best is not None  # ALPHAS is not empty
    return best[1]


def _joint(ranges: Sequence[Array]) -> Array:
    """Return the largest share that each channel has of its layer's mean range, in the first layer's unit."""
    joint: Array = np.maximum.reduce([each * (ranges[0].mean() / each.mean()) for each in ranges])
    return joint


def fit_split(observed: Sequence[Observed], *, least: float) -> list[SplitParams]:
    """Find the lowest ceiling C >= ``least`` for ``SPLITS``; a neuron up to ``high`` needs ``ceil(high / C) - 1`` copies."""
    highs = [np.maximum(each.high, 0) * HEADROOM for each in observed]  # [intermediate]
    tops = [max(float(high.max()), 1e-6) for high in highs]
    most = max(tops)  # layers that need no copies have no part in the choice
    joint = np.maximum.reduce(
        [high * (most / top) for high, top in zip(highs, tops, strict=True) if top > least or top == most]
    )
    budget = SPLITS * max(1, len(joint) // 1024)
    below, ceiling = min(least, most), most
    for _ in range(50):
        middle = (below + ceiling) / 2
        if middle > 0 and np.maximum(np.ceil(joint / middle) - 1, 0).sum() <= budget:
            ceiling = middle
        else:
            below = middle
    copies = np.maximum(np.ceil(joint / ceiling) - 1, 0).astype(np.int64)  # [intermediate]
    alone = len(highs) == 1
    floors = [max(min(least, top), 1e-6) for top in tops]
    ceilings = [
        ceiling if alone else max(float((high / (copies + 1)).max()), floor) for high, floor in zip(highs, floors, strict=True)
    ]
    return [_split(copies, own, float(each.low.min())) for own, each in zip(ceilings, observed, strict=True)]


def _split(copies: NDArray[np.int64], ceiling: float, low: float) -> SplitParams:
    offsets = [ceiling * k for count in copies for k in range(1, count + 1)]
    zero_point = fit_range(low, ceiling).zero_point
    return SplitParams(
        scale=ceiling / (255 - zero_point),  # the largest uint8 is exactly the ceiling, so that the copies join
        zero_point=zero_point,
        neurons=np.repeat(np.arange(len(copies)), copies),
        offsets=np.asarray(offsets, dtype=np.float32),
    )


def fit_range(low: float, high: float) -> QuantParams:
    """Return parameters for ``low`` to ``high``, in which zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-12)
    return QuantParams(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)))


def quantize_weight(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Round a weight ``[in, out]`` to int8, with a scale for each output ``[out]``."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 127
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def quantize_table(table: Array) -> tuple[NDArray[np.int8], Array]:
    """Round an embedding table ``[n, width]`` to int8, with a scale for each row ``[n, 1]``."""
    columns, scale = quantize_weight(table.T)
    return np.ascontiguousarray(columns.T), scale[:, None]


@dataclasses.dataclass(frozen=True)
class QuantizedDense(Dense):
    """A product in int8: ``weight`` int8 ``[in, out]``, ``bias`` float32 ``[out]``."""

    scale: Array  # of the weight, ``[out]``
    input: QuantParams  # parameters of the input
    residual: Array | None = None  # factor of the residual, ``[out]``
    following: QuantParams | None = None  # parameters of the next product's input; None if the output stays in float32

    def columns(self, order: NDArray[np.intp]) -> Self:
        """Return the layer with its outputs in another order."""
        return dataclasses.replace(super().columns(order), scale=self.scale[order])

    def filled(self, count: int) -> Self:
        """Return the layer with ``count`` more outputs, of zeros."""
        return dataclasses.replace(super().filled(count), scale=np.pad(self.scale, (0, count), constant_values=1))

    def beside(self, other: Dense) -> Self:
        """Return the layer with the outputs of ``other``, of the same input, after its own."""
        assert isinstance(other, QuantizedDense)  # gate and neurons are
        return dataclasses.replace(super().beside(other), scale=np.concatenate([self.scale, other.scale]))

    def times(self, factor: NDArray[np.floating] | float) -> QuantizedDense:
        """Multiply the outputs by ``factor``, ``[out]`` or one number."""
        by = np.asarray(factor, dtype=np.float32)
        return dataclasses.replace(self, scale=self.scale * by, bias=self.bias * by)


@dataclasses.dataclass(frozen=True)
class QuantizedEmbeddings(Embeddings):
    """Embeddings without a projection; ``following`` has the parameters of the first products' input."""

    following: QuantParams


@dataclasses.dataclass(frozen=True)
class QuantizedWeights:
    """A checkpoint's weights in int8, read one part at a time as from ``Weights``.

    Residuals are shifted and smoothed too: they are multiplied back, and their shift is added to the product's bias.
    """

    weights: Weights
    params: tuple[LayerParams, ...]
    bf16_layers: int = 0  # from the first: their feed-forward stays in bfloat16

    def embeddings(self) -> Embeddings:
        """Return the tables; their output is shifted and smoothed."""
        tables, first = self.weights.embeddings(), self.params[0].query
        if tables.projection is not None:
            weight, bias = tables.projection.weight / first.smooth, (tables.projection.bias - first.shift) / first.smooth
            return dataclasses.replace(tables, projection=Dense(weight, bias))
        norm = _fold(tables.norm, first)
        return QuantizedEmbeddings(tables.word, tables.position, tables.token_type, norm, None, first)

    def layer(self, i: int) -> Layer:
        """Return layer ``i``; its normalizations shift and smooth for the products after them."""
        a, params = self.weights.architecture, self.params[i]
        layer = fold_biases(self.weights.layer(i), keys_biased=a.keys_biased)
        following = self.params[i + 1].query if i + 1 < len(self.params) else None
        context = params.attention_output
        key, value = _quantize(layer.key, params.query), _quantize(layer.value, params.query)
        value = dataclasses.replace(value, bias=value.bias - context.shift).times(1 / context.smooth)
        # A pre-norm residual is neither shifted nor smoothed, but for the embeddings, which are normalized.
        attended = _quantize(layer.attention_output, context, residual=params.query if i == 0 or not a.pre_norm else PLAIN)
        output_norm = layer.output_norm if following is None else _fold(layer.output_norm, following)
        layer = dataclasses.replace(
            layer,
            query=_quantize(layer.query, params.query),
            key=key if a.keys_biased else dataclasses.replace(key, bias=layer.key.bias),  # softmax does not see the shift
            value=value,
            attention_output=attended,
            output_norm=output_norm,
        )
        if i < self.bf16_layers:
            return layer
        inner = _quantize(layer.intermediate, params.intermediate)
        residual = PLAIN if a.pre_norm else params.intermediate
        gate: QuantizedDense | None = None
        if layer.gate is not None and isinstance(params.output, SmoothedParams):
            gate = _quantize(layer.gate, params.intermediate).times(1 / params.output.smooth)
            output = _quantize(layer.output, params.output, residual)
            output = dataclasses.replace(output, weight=np.pad(output.weight, ((0, -len(output.weight) % SIXTEEN), (0, 0))))
        else:
            assert isinstance(params.output, SplitParams)  # see fit_layers
            inner = _split_outputs(inner, params.output)
            output = _split_inputs(layer.output, params.output, residual)
        return dataclasses.replace(
            layer,
            attention_output=dataclasses.replace(attended, following=params.intermediate),
            attention_norm=_fold(layer.attention_norm, params.intermediate),
            intermediate=dataclasses.replace(inner, following=params.output),
            gate=gate,
            output=dataclasses.replace(output, following=following),
        )

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads, which stay in float32."""
        return self.weights.heads


def _fold(norm: Norm, p: SmoothedParams) -> Norm:
    """Make a normalization give ``(y - shift) / smooth``."""
    return Norm(norm.weight / p.smooth, (norm.bias - p.shift) / p.smooth)


def _quantize(dense: Dense, p: SmoothedParams, residual: SmoothedParams | None = None) -> QuantizedDense:
    weight, scale = quantize_weight(dense.weight * p.smooth[:, None])
    bias = dense.bias + p.shift @ dense.weight
    if residual is None:
        return QuantizedDense(weight, bias, scale, p)
    return QuantizedDense(weight, bias + residual.shift, scale, p, np.broadcast_to(residual.smooth, bias.shape))


def _split_outputs(dense: QuantizedDense, p: SplitParams) -> QuantizedDense:
    """Append the copies to the first feed-forward product, and zeros up to a multiple of ``FOUR``."""
    n, bias, scale = p.neurons, dense.bias, dense.scale
    weight = np.concatenate([dense.weight, dense.weight[:, n]], axis=1)
    padding = -weight.shape[1] % FOUR
    return dataclasses.replace(
        dense,
        weight=np.pad(weight, ((0, 0), (0, padding))),
        bias=np.pad(np.concatenate([bias, bias[n] - p.offsets]), (0, padding)),
        scale=np.pad(np.concatenate([scale, scale[n]]), (0, padding), constant_values=1),
    )


def _split_inputs(dense: Dense, p: SplitParams, residual: SmoothedParams) -> QuantizedDense:
    """Append the copies' rows to the second feed-forward product."""
    weight, scale = quantize_weight(np.concatenate([dense.weight, dense.weight[p.neurons]]))
    weight = np.pad(weight, ((0, -len(weight) % FOUR), (0, 0)))
    return QuantizedDense(weight, dense.bias + residual.shift, scale, p, np.broadcast_to(residual.smooth, dense.bias.shape))
