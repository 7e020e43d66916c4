"""Disentangled attention against NumPy in float64: c2p and p2c by each distance's bucket (He et al. 2021)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from operators_of_one_node import FUNCTIONS, Operator, levels
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.operators import bfloat16, functions, to_columns

Array = NDArray[Any]
SCALE, ZERO_POINT = 0.02, 128
BOTH, KEYS, QUERIES = (True, True), (True, False), (False, True)  # tables of positions for keys and for queries
NUMBERS = (False, False)  # a number for each distance and head instead
IN_BF16 = [level for level in levels("disentangled") if level in levels("dense_bf16")]  # the others multiply in fixed point
NATIVE = [*(("", level) for level in levels("disentangled")), *(("Bf16", level) for level in IN_BF16)]
NONE = [pytest.param("", "", marks=pytest.mark.skip(reason="no such kernel here"))]
each = pytest.mark.parametrize(("format", "level"), [*NATIVE, ("", FUNCTIONS), ("Bf16", FUNCTIONS)])
native = pytest.mark.parametrize(("format", "level"), NATIVE or NONE)
terms = pytest.mark.parametrize("tables", [BOTH, KEYS, QUERIES, NUMBERS], ids=["both", "c2p", "p2c", "bias"])


def log_buckets(reach: int, buckets: int) -> Array:
    """Return the bucket of each distance, as transformers finds it, from 0 on."""
    apart = torch.arange(1 - reach, reach)
    found = (make_log_bucket_position(apart, buckets, reach) if buckets else apart).long().numpy()
    return np.asarray(found - found.min(), dtype=np.int64)


def rounded(array: Array) -> Array:
    """Round to bfloat16."""
    return (bfloat16(array).astype(np.uint32) << 16).view(np.float32)


def attention(
    format: str, tokens: int, heads: int, head: int, lengths: list[int], buckets: Array, tables: tuple[bool, bool] = BOTH
) -> Operator:
    """Make operands of random numbers; scores reach from about -25 to 25."""
    rng = np.random.default_rng(tokens + head)
    spread = {"q": 1.5 / math.sqrt(head), "k": 2.5, "v": 1.0}
    parts = {n: (rng.normal(size=(len(lengths), tokens, heads * head)) * of).astype(np.float32) for n, of in spread.items()}
    positions: dict[str, Any] = {}
    for name, there, of in (("position_key", tables[0], 2.5), ("position_query", tables[1], 1.5 / math.sqrt(head))):
        table = rng.normal(size=(heads, int(buckets[-1]) + 1, head)) * of
        positions[name] = to_columns(bfloat16(table)) if there else None
    rest: dict[str, Any] = {"lengths": np.array(lengths, dtype=np.int64)}
    numbers = rng.normal(size=(heads, int(buckets[-1]) + 17)).astype(np.float32) * 3 if tables == NUMBERS else None
    end = positions | {"buckets": buckets, "position_bias": numbers}
    common: dict[str, Any] = {"attributes": {"num_heads": heads}, "functions": ()}
    if format:
        narrow = {f"{n}16": rounded(part) for n, part in parts.items()}
        common |= {"kernels": Kernels.BF16, "narrow": frozenset({*narrow, "y16"})}
        inputs, outputs = (*narrow, "lengths"), {"y16": np.float32}
        operator = Operator("Bf16DisentangledAttention", narrow | rest | end, inputs, outputs, **common)
    else:
        eight = {"y_scale": np.array(SCALE, dtype=np.float32), "y_zero_point": np.array(ZERO_POINT, dtype=np.uint8)}
        operands = parts | rest | eight | end
        operator = Operator("DisentangledAttention", operands, (*parts, "lengths"), {"y8": np.uint8}, **common)
    return dataclasses.replace(operator, functions=tuple(functions(operator.name, positions=tables)))


def table_of(operator: Operator, name: str) -> Array | None:
    """Return a table as ``[heads, columns, head]``, in float64, read back number by number."""
    bits = operator.operands[name]
    if bits is None:
        return None
    table = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    heads, pairs, columns, _ = table.shape
    found = [[[table[h, n // 2, c, n % 2] for n in range(2 * pairs)] for c in range(columns)] for h in range(heads)]
    return np.asarray(found)


def in_float64(operator: Operator, queries: int | None = None) -> Array:
    """Return each head's context of the first queries, by gathering; padding gets 0."""
    q, k, v = (operator.operands[n].astype(np.float64) for n in operator.inputs[:3])
    heads, buckets = operator.attributes["num_heads"], operator.operands["buckets"]
    reach, of_keys, of_queries = len(buckets) // 2, table_of(operator, "position_key"), table_of(operator, "position_query")
    q = q[:, :queries]
    y = np.zeros_like(q)
    for text, length in enumerate(operator.operands["lengths"]):
        rows = min(length, q.shape[1])
        apart = np.arange(rows)[:, None] - np.arange(length)
        bucket = buckets[np.clip(apart, -reach, reach) + reach]  # [rows, length]
        by_head = (x[text].reshape(-1, heads, q.shape[2] // heads).transpose(1, 0, 2) for x in (q[:, :rows], k, v))
        for head, (qs, ks, vs) in enumerate(zip(*by_head, strict=True)):
            scores = qs @ ks[:length].T
            if of_keys is not None:
                scores += np.take_along_axis(qs @ of_keys[head].T, bucket, axis=1)
            if of_queries is not None:
                scores += np.take_along_axis(ks[:length] @ of_queries[head].T, bucket.T, axis=1).T
            if operator.operands["position_bias"] is not None:
                scores += operator.operands["position_bias"][head].astype(np.float64)[bucket]
            weights = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
            weights /= weights.sum(axis=1, keepdims=True)
            y[text, :rows, head * qs.shape[1] : (head + 1) * qs.shape[1]] = weights @ vs[:length]
    return y


def assert_close(format: str, level: str, found: Array, expected: Array) -> None:
    """Compare with what is rounded; of float32 kernels round queries, keys and weights, too, to bfloat16 or to steps."""
    assert np.isfinite(found).all()
    if format:
        np.testing.assert_allclose(found, expected, rtol=0.51 * 2.0**-7, atol=2.0**-7)
        return
    off = np.abs(found - np.clip(expected / SCALE + ZERO_POINT, 0, 255))
    most, mean = (6, 0.45) if level in IN_BF16 else (0.51 if level == FUNCTIONS else 1, 0.3)
    assert off.max() < most and off.mean() < mean


def assert_equals_float64(operator: Operator, format: str, level: str, queries: int | None = None) -> None:
    names = operator.inputs[:1]
    (found,) = operator.run({n: operator.operands[n][:, :queries] for n in names}, kernels=level)
    expected, padding = in_float64(operator, queries), 0 if format else ZERO_POINT
    for text, length in enumerate(operator.operands["lengths"]):
        rows = min(length, found.shape[1])
        assert_close(format, level, found[text, :rows], expected[text, :rows])
        if queries is None and level != FUNCTIONS:
            assert (found[text, rows:] == padding).all()


@each
@terms
@pytest.mark.parametrize(
    ("tokens", "heads", "head", "lengths", "reach", "buckets"),
    [
        (1, 2, 64, [1], 512, 256),
        (16, 3, 32, [16, 7, 1], 512, 256),
        (33, 2, 16, [33, 17, 32], 8, 0),  # beyond reach; no log part
        (70, 2, 48, [70, 33], 64, 16),
        (128, 2, 64, [128, 100], 512, 256),
        (200, 1, 64, [200, 193, 192], 128, 32),
        (600, 1, 64, [600, 500], 512, 256),  # the far buckets, and beyond reach
    ],
)
def test_scores_have_both_terms_of_positions(
    tokens: int, heads: int, head: int, lengths: list[int], reach: int, buckets: int, tables: Any, format: str, level: str
) -> None:
    operator = attention(format, tokens, heads, head, lengths, log_buckets(reach, buckets), tables)
    assert_equals_float64(operator, format, level)


@native
def test_every_length_up_to_200(format: str, level: str) -> None:
    operator = attention(format, 200, 1, 32, list(range(1, 201)), log_buckets(128, 64))
    assert_equals_float64(operator, format, level)


@each
@terms
@pytest.mark.parametrize(("tokens", "lengths"), [(1, [1]), (40, [40, 7, 16]), (300, [300, 290])])
def test_the_first_query_by_itself_is_as_among_others(
    tokens: int, lengths: list[int], tables: Any, format: str, level: str
) -> None:
    operator = attention(format, tokens, 2, 32, lengths, log_buckets(128, 64), tables)
    assert_equals_float64(operator, format, level, queries=1)
    if level != FUNCTIONS:
        name = operator.inputs[0]
        (all_rows,), (row,) = operator.run(kernels=level), operator.run({name: operator.operands[name][:, :1]}, kernels=level)
        np.testing.assert_array_equal(row[:, 0], all_rows[:, 0])


@native
def test_a_text_has_the_same_bits_by_itself_and_in_a_batch_on_any_number_of_threads(format: str, level: str) -> None:
    lengths = [600, 1, 16, 17, 47, 48, 49, 112, 191, 192, 193, 384, 385, 599]
    operator = attention(format, 600, 2, 32, lengths, log_buckets(256, 128))
    (together,) = operator.run(kernels=level)
    for threads in (1, 3):
        np.testing.assert_array_equal(operator.run(kernels=level, threads=threads)[0], together)
    for text, length in enumerate(lengths):
        alone = {n: operator.operands[n][text : text + 1, :length] for n in operator.inputs[:3]}
        (single,) = operator.run({**alone, "lengths": np.array([length])}, kernels=level, threads=1)
        np.testing.assert_array_equal(single[0], together[text, :length])


@native
def test_nan_in_the_padding_changes_no_bit(format: str, level: str) -> None:
    operator = attention(format, 70, 2, 48, [33, 0, 64], log_buckets(64, 32))
    broken = {n: operator.operands[n].copy() for n in operator.inputs[:3]}
    for array in broken.values():
        for text, length in enumerate(operator.operands["lengths"]):
            array[text, length:] = np.nan
    np.testing.assert_array_equal(operator.run(broken, kernels=level)[0], operator.run(kernels=level)[0])


@native
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_a_number_that_is_not_finite_spoils_only_its_head(name: str, format: str, level: str) -> None:
    operator = attention(format, 40, 3, 16, [40, 33], log_buckets(64, 32))
    operand = next(n for n in operator.inputs if n.startswith(name))
    broken, column, row = operator.operands[operand].copy(), 16 + 5, 9
    broken[1, row, column] = np.nan if level in IN_BF16 else np.inf  # of fixed point either
    (found,), (expected,) = operator.run({operand: broken}, kernels=level), operator.run(kernels=level)
    spoilt = np.zeros(found.shape, dtype=bool)
    spoilt[1, slice(row, row + 1) if name == "q" else slice(33), 16:32] = True
    np.testing.assert_array_equal(found[~spoilt], expected[~spoilt])
    gone = found[1, :33, column] if name == "v" else found[spoilt]
    assert np.isnan(gone).all() if format else (gone == 0).all()


@native
@pytest.mark.parametrize("head", [16, 64, 128, 256])
@pytest.mark.parametrize("tokens", [16, 300])
def test_sums_of_the_largest_numbers_fit(head: int, tokens: int, format: str, level: str) -> None:
    """All numbers are as large as the largest, and all products of a sum have one sign."""
    operator = attention(format, tokens, 1, head, [tokens], log_buckets(512, 0))
    full = {n: np.full_like(operator.operands[n], 2) for n in operator.inputs[:2]}
    behind = np.arange(-511, 512) < 0  # the keys behind a query; it sees only them
    table = to_columns(bfloat16(np.where(behind, 2.0, -2.0)[None, :, None] * np.ones(head)))
    tables = {"position_key": table, "position_query": table}
    operator = dataclasses.replace(operator, operands=operator.operands | full | tables)
    assert_equals_float64(operator, format, level)


@native
def test_more_units_than_slots_of_scratch_memory(format: str, level: str) -> None:
    """There are 64 slots, and each unit leaves its numbers in one."""
    operator = attention(format, 24, 12, 16, [24 - i % 20 for i in range(30)], log_buckets(32, 16))
    assert_equals_float64(operator, format, level)


@native
def test_what_does_not_fit_is_refused(format: str, level: str) -> None:
    operator = attention(format, 5, 2, 16, [5], log_buckets(8, 0))

    def changed(**operands: Any) -> Operator:
        return dataclasses.replace(operator, operands=operator.operands | operands)

    buckets, table = operator.operands["buckets"], operator.operands["position_key"]
    for wrong, message in (
        (changed(buckets=buckets * 2), "rise by 0 or 1"),
        (changed(buckets=buckets[:-1]), "2 reach - 1"),
        (changed(buckets=buckets + 1), "is not in the tables"),
        (changed(position_key=table[:1]), r"heads, head / 2, columns, 2"),
        (changed(position_key=table[:, :, 1:]), "differ in size"),
        (changed(position_key=None, position_query=None), "a table of positions"),
    ):
        with pytest.raises(Exception, match=message):
            wrong.open(kernels=level)
    q = operator.inputs[0]
    with pytest.raises(Exception, match="as many queries as keys, or the first"):
        operator.run({q: operator.operands[q][:, :2]}, kernels=level)


@each
@pytest.mark.parametrize("length", [-1, 6])
def test_an_impossible_length_is_refused(format: str, level: str, length: int) -> None:
    operator = attention(format, 5, 2, 16, [5, 5], log_buckets(8, 0))
    with pytest.raises(Exception, match=r"nonpad_kv_seqlen"):
        operator.run({"lengths": np.array([5, length])}, kernels=level)
