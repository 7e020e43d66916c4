"""Batches: plans keep the budget and waste little, packed arrays match naively padded ones, and sizes follow the ladder."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedbert.engine.run.batches import (
    COARSE,
    FINE,
    LEAST_TOKENS,
    Bucket,
    Budget,
    pack,
    packed_bucket,
    pad_to,
    padded_bucket,
    plan,
    round_up,
)
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export.parity.graphs import packed_arrays

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=20)
FINENESS = st.sampled_from([COARSE, FINE])
PAD = 7


@given(lengths=st.lists(st.integers(2, 512), max_size=200), tokens=st.integers(1, 4096), rows=st.integers(1, 64))
def test_a_plan_covers_all_rows_within_the_budget(lengths: list[int], tokens: int, rows: int) -> None:
    budget = Budget(tokens=tokens, rows=rows)
    batches = list(plan(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        padded = longest * len(batch)
        assert len(batch) == 1 or (padded <= tokens and len(batch) <= rows)
        padding = padded - sum(lengths[index] for index in batch)
        assert padding <= max(budget.free, budget.waste * padded)


def test_one_long_text_does_not_pad_the_short_ones() -> None:
    assert list(plan([8] * 20 + [500], Budget(tokens=100_000, rows=64))) == [list(range(20)), [20]]


def rows_of(lengths: list[int]) -> list[Row]:
    rng = np.random.default_rng(len(lengths))
    return [
        Row(ids=rng.integers(10, 99, size=n).tolist(), types=[int(i >= n // 2) for i in range(n)], truncated=False)
        for n in lengths
    ]


@given(LENGTHS, FINENESS)
@settings(max_examples=60, deadline=None)
def test_every_token_stands_where_the_plan_says(lengths: list[int], fineness: int) -> None:
    rows, bucket = rows_of(lengths), packed_bucket(lengths, fineness=fineness)
    batch = pack(rows, bucket, PAD)
    a = batch.arrays
    assert batch.texts == len(rows) and all(array.dtype == np.int32 for array in a.values())
    assert a["input_ids"].shape == a["position_ids"].shape == a["token_type_ids"].shape == (bucket.tokens,)
    assert a["token_offset"].shape == (bucket.texts, bucket.longest)
    assert a["cumulative_lengths"].shape == (bucket.texts + 1,)
    for i, row in enumerate(rows):  # each text by its bounds
        part = slice(a["cumulative_lengths"][i], a["cumulative_lengths"][i + 1])
        assert a["input_ids"][part].tolist() == row.ids
        assert a["token_type_ids"][part].tolist() == row.types
        assert a["position_ids"][part].tolist() == list(range(len(row.ids)))
        # and by its places in a padded batch, as RemovePadding would list them
        assert a["token_offset"].ravel()[part].tolist() == [i * bucket.longest + s for s in range(len(row.ids))]
    filled = a["cumulative_lengths"][-1]
    assert filled == sum(lengths) + bucket.texts - len(rows) <= bucket.tokens  # each filler is a text of one token
    assert (a["input_ids"][sum(lengths) :] == PAD).all()
    assert sorted(a["token_offset"].ravel()) == list(range(bucket.texts * bucket.longest))  # every place once


@given(LENGTHS)
@settings(max_examples=30, deadline=None)
def test_exporter_and_engine_make_the_same_plan(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    bucket = Bucket(texts=len(rows), longest=max(lengths), tokens=sum(lengths))
    in_blocks = packed_bucket([sum(lengths)], fineness=FINE, block=8)
    blocks = -(-sum(lengths) // 8)
    filled = Bucket(texts=len(rows), longest=max(bucket.longest, -(-8 * blocks // len(rows))), tokens=8 * blocks)
    assert in_blocks.tokens % 8 == 0 and in_blocks.tokens <= in_blocks.texts * in_blocks.longest
    for size, block in ((bucket, 1), (filled, 8)):
        expected = packed_arrays(rows, PAD, block)
        found = pack(rows, size, PAD, block).arrays
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@given(LENGTHS, FINENESS)
def test_padded_scores_are_no_more_than_those_of_a_padded_batch(lengths: list[int], fineness: int) -> None:
    packed = packed_bucket(lengths, fineness=fineness, padded=True)
    padded = padded_bucket(lengths, fineness=fineness, max_length=8192)
    assert (packed.texts, packed.longest) == (padded.texts, padded.longest) and packed.tokens <= padded.tokens


@given(LENGTHS, FINENESS, st.sampled_from([2, 8, 64]))
@settings(max_examples=30, deadline=None)
def test_the_queries_of_a_block_see_all_that_a_window_shows(lengths: list[int], fineness: int, block: int) -> None:
    """Pairs of a text at most half a block apart, once, and none of two texts."""
    bucket = packed_bucket(lengths, fineness=fineness, block=block)
    arrays = pack(rows_of(lengths), bucket, PAD, block).arrays
    texts = np.repeat(np.arange(len(lengths)), lengths)  # of each token
    seen = set()
    for i, (units, owners) in enumerate(zip(arrays["window_blocks"], arrays["window_texts"], strict=True)):
        keys = (units[:, None] * (block // 2) + np.arange(block // 2)).ravel()
        for row, owner in zip(range(i * block, (i + 1) * block), owners[block // 2 : -(block // 2)], strict=True):
            shown = keys[owners == owner].tolist()
            assert len(set(shown)) == len(shown) and (row >= len(texts) or all(texts[key] == texts[row] for key in shown))
            seen |= {(row, key) for key in shown}
    for row, owner in enumerate(texts):
        near = range(max(0, row - block // 2), min(len(texts), row + block // 2 + 1))
        assert all((row, key) in seen for key in near if texts[key] == owner)


@given(LENGTHS, FINENESS, st.integers(60, 64))
@settings(max_examples=30, deadline=None)
def test_batches_are_padded_to_a_bucket(lengths: list[int], fineness: int, max_length: int) -> None:
    rows, bucket = rows_of(lengths), padded_bucket(lengths, fineness=fineness, max_length=max_length)
    a = pad_to(rows, bucket, PAD).arrays
    assert max(lengths) <= bucket.longest <= max_length
    for i, row in enumerate(rows):
        n = len(row.ids)
        assert a["input_ids"][i].tolist() == row.ids + [PAD] * (bucket.longest - n)
        assert a["attention_mask"][i].tolist() == [1] * n + [0] * (bucket.longest - n)
        assert a["token_type_ids"][i].tolist() == row.types + [0] * (bucket.longest - n)
    assert (a["attention_mask"][len(rows) :].sum(axis=1) == 1).all()  # a filler is not empty: softmax of nothing is NaN


@given(st.integers(1, 40_000), FINENESS)
def test_a_ladder_goes_up_by_small_steps(number: int, fineness: int) -> None:
    step = round_up(number, LEAST_TOKENS, fineness)
    assert step >= number and step % LEAST_TOKENS == 0
    assert step - number < max(LEAST_TOKENS, number / 2**fineness)
    assert round_up(step, LEAST_TOKENS, fineness) == step  # each step maps to itself


def test_ladders_are_short() -> None:
    assert len({round_up(n, LEAST_TOKENS, COARSE) for n in range(1, 513)}) <= 20
    assert len({round_up(n, LEAST_TOKENS, FINE) for n in range(1, 65537)}) <= 160


def test_batches_that_are_captured_recur_in_few_shapes() -> None:
    """Each shape becomes a CUDA graph: 2 to 8 texts of 20 to 512 tokens, in all orders and mixtures."""
    rng = np.random.default_rng(0)
    drawn = [np.clip(rng.lognormal(5, 0.6, size=rng.integers(2, 9)), 20, 512).astype(int).tolist() for _ in range(3000)]
    shapes = {packed_bucket(lengths, fineness=COARSE) for lengths in drawn if sum(lengths) <= 2048}
    assert len(shapes) < 128, len(shapes)
