"""Plans use each row once, keep the budget, and waste little."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusedbert.engine.run.plan import Budget, pad, plan
from fusedbert.engine.text.tokenizer import Row


@given(lengths=st.lists(st.integers(2, 512), max_size=200), tokens=st.integers(1, 4096), rows=st.integers(1, 64))
def test_plan(lengths: list[int], tokens: int, rows: int) -> None:
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


def test_pad_marks_what_is_real() -> None:
    feeds = pad([Row(ids=[2, 9, 3], types=[0, 0, 1], truncated=False), Row(ids=[2, 3], types=[0, 0], truncated=False)], 7)
    assert feeds["input_ids"].tolist() == [[2, 9, 3], [2, 3, 7]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
