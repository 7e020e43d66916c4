"""The weights of the int8 graph: a checkpoint's, quantized by a plan, with all shifts and smoothings folded in.

What ``quantize`` decides is carried out here. The residual of a layer is the input of its products, shifted and smoothed
too: it is multiplied back where it is added, and the shift that it lacks stands in the bias of the product beside it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.weights import Array, Dense, Embeddings, Layer, Norm, Weights
from .quantize import LayerPlan, Site, Stairs, quantize_weight

FOUR = 4  # inputs that the instruction behind an 8-bit product takes at once


@dataclasses.dataclass(frozen=True)
class EightBits:
    """How numbers become unsigned eight bits: ``round(y / scale) + zero_point``."""

    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class QuantizedDense(Dense):
    """A product in eight bits: ``weight`` int8 ``[in, out]``, ``bias`` float32 ``[out]``.

    Attributes:
        scale: Of each output of the weight, ``[out]``.
        input_scale: Of the product's input.
        zero_point: Of the product's input.
        residual: What the residual beside this product is to be multiplied by, ``[out]``; None where there is none.
        following: The eight bits that the next product takes what comes of this one in; None where it takes none.
    """

    scale: Array
    input_scale: float
    zero_point: int
    residual: Array | None = None
    following: EightBits | None = None

    def times(self, factor: NDArray[np.floating] | float) -> QuantizedDense:
        """Return the product whose outputs are multiplied by ``factor``, ``[out]`` or one for all."""
        by = np.asarray(factor, dtype=np.float32)
        return dataclasses.replace(self, scale=self.scale * by, bias=self.bias * by)


@dataclasses.dataclass(frozen=True)
class QuantizedTable:
    """An embedding table in eight bits: ``rows`` int8 ``[n, width]``, a scale for each row ``[n, 1]``."""

    rows: NDArray[np.int8]
    scale: Array


@dataclasses.dataclass(frozen=True)
class QuantizedWeights:
    """A checkpoint's weights under a plan; the same questions as ``checkpoint.Weights``, answered in int8."""

    weights: Weights
    plans: tuple[LayerPlan, ...]

    def embeddings(self) -> Embeddings:
        """Return the tables; what comes out of them is shifted and smoothed for the first layer."""
        tables, site = self.weights.embeddings(), self.plans[0].query
        if tables.projection is not None:
            weight, bias = tables.projection.weight / site.smooth, (tables.projection.bias - site.shift) / site.smooth
            return dataclasses.replace(tables, projection=Dense(weight, bias))
        return dataclasses.replace(tables, norm=_fold(tables.norm, site))

    def layer(self, i: int) -> Layer:
        """Return layer ``i`` with its products in int8 and its normalizations made for the products behind them."""
        layer, plan = self.weights.layer(i), self.plans[i]
        following = self.plans[i + 1].query if i + 1 < len(self.plans) else None
        context = plan.attention_output
        behind = None if following is None else _eight_bits(following)
        value = _product(layer.value, plan.query)
        value = dataclasses.replace(value, bias=value.bias - context.shift).times(1 / context.smooth)
        attended = _product(layer.attention_output, context, residual=plan.query)
        inner = _climb(_product(layer.intermediate, plan.intermediate), plan.output)
        output = _descend(layer.output, plan.output, residual=plan.intermediate)
        return Layer(
            query=_product(layer.query, plan.query),
            key=_product(layer.key, plan.query),
            value=value,
            attention_output=dataclasses.replace(attended, following=_eight_bits(plan.intermediate)),
            attention_norm=_fold(layer.attention_norm, plan.intermediate),
            intermediate=dataclasses.replace(inner, following=_eight_bits(plan.output)),
            output=dataclasses.replace(output, following=behind),
            output_norm=layer.output_norm if following is None else _fold(layer.output_norm, following),
        )

    def dense(self, name: str) -> Dense:
        """Return a layer of the head, which works on one row a text and stays in floating point."""
        return self.weights.dense(name)


def quantize_table(table: Array) -> QuantizedTable:
    """Round a table to eight bits, row by row."""
    columns, scale = quantize_weight(table.T)
    return QuantizedTable(np.ascontiguousarray(columns.T), scale[:, None])


def _fold(norm: Norm, site: Site) -> Norm:
    """Make a normalization give ``(y - shift) / smooth`` in place of ``y``."""
    return Norm(norm.weight / site.smooth, (norm.bias - site.shift) / site.smooth)


def _product(dense: Dense, site: Site, residual: Site | None = None) -> QuantizedDense:
    """Quantize a product whose input comes shifted and smoothed, and mend the residual that is added to it."""
    weight, scale = quantize_weight(dense.weight * site.smooth[:, None])
    bias = dense.bias + site.shift @ dense.weight
    if residual is not None:
        bias = bias + residual.shift
    factor = None if residual is None else residual.smooth
    return QuantizedDense(weight, bias, scale, site.scale, site.zero_point, factor)


def _eight_bits(site: Site | Stairs) -> EightBits:
    return EightBits(site.scale, site.zero_point)


def _climb(dense: QuantizedDense, stairs: Stairs) -> QuantizedDense:
    """Append the copies of large neurons to the first feed-forward product, and zeros up to a multiple of ``FOUR``."""
    n, bias, scale = stairs.neurons, dense.bias, dense.scale
    weight = np.concatenate([dense.weight, dense.weight[:, n]], axis=1)
    none = -weight.shape[1] % FOUR
    return dataclasses.replace(
        dense,
        weight=np.pad(weight, ((0, 0), (0, none))),
        bias=np.pad(np.concatenate([bias, bias[n] - stairs.steps]), (0, none)),
        scale=np.pad(np.concatenate([scale, scale[n]]), (0, none), constant_values=1),
    )


def _descend(dense: Dense, stairs: Stairs, residual: Site) -> QuantizedDense:
    """Append the copies' rows to the second feed-forward product, and mend the residual that is added to it."""
    weight, scale = quantize_weight(np.concatenate([dense.weight, dense.weight[stairs.neurons]]))
    weight = np.pad(weight, ((0, -len(weight) % FOUR), (0, 0)))
    bias = dense.bias + residual.shift
    return QuantizedDense(weight, bias, scale, stairs.scale, stairs.zero_point, residual.smooth)
