"""The operators of a graph's inputs, embeddings and lengths, against NumPy: as kernels, and as the functions of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import FUNCTIONS, Operator, levels, normalize

from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.operators import bfloat16, embed_function

Array = NDArray[Any]
WORDS, POSITIONS, PADDING = 50, 40, 1
INT8, BF16 = levels("embed_int8"), levels("embed_bf16")
EMBEDS = [("Embed", level) for level in [*INT8, FUNCTIONS]] + [("Bf16Embed", level) for level in [*BF16, FUNCTIONS]]
each = pytest.mark.parametrize(("name", "kernels"), EMBEDS)


def embed(
    name: str, texts: int, tokens: int, width: int, *, segments: bool = True, counted: bool = False, positioned: bool = True
) -> Operator:
    """Make embeddings of random numbers, with segments or none, and positions counted as RoBERTa's, from 0 on, or none."""
    rng = np.random.default_rng(0)
    floats = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    ids = rng.integers(0, WORDS, (texts, tokens))
    if counted:
        ids[:, tokens // 2 :] = rng.integers(0, 3, (texts, tokens - tokens // 2))  # padding among text, too
    operands: dict[str, Any] = {
        "ids": ids,
        "segments": rng.integers(0, 2, (texts, tokens)) if segments else None,
        "word": floats(WORDS, width).astype(np.float16),
        "position": floats(POSITIONS, width) if positioned else None,
        "token_type": floats(2, width) if segments else None,
        "gamma": floats(width),
        "beta": floats(width),
    }
    outputs: dict[str, type] = {"y": np.float32, "y16": np.float32}
    if name == "Embed":
        operands["word"] = rng.integers(-127, 128, (WORDS, width), dtype=np.int8)
        operands |= {"scale": rng.uniform(0.001, 0.02, (WORDS, 1)).astype(np.float32)}
        operands |= {"y_scale": np.array(0.031, dtype=np.float32), "y_zero_point": np.array(99, dtype=np.uint8)}
        outputs = {"y": np.float32, "y8": np.uint8}
    inputs = ("ids", "segments") if segments else ("ids",)
    attributes = {"epsilon": 1e-6, **({"padding_id": PADDING} if counted else {})}
    kernels = Kernels.INT8 if name == "Embed" else Kernels.BF16
    functions = (embed_function(name, segments=segments, counted=counted, positioned=positioned),)
    return Operator(name, operands, inputs, outputs, attributes, kernels, frozenset({"y16"}), functions)


def in_float64(operator: Operator) -> Array:
    """Return the normalized sums, token by token."""
    o = operator.operands
    words = o["word"].astype(np.float64) * o.get("scale", 1.0)
    total = np.zeros((*o["ids"].shape, o["word"].shape[1]))
    for text, row in enumerate(o["ids"]):
        counted = 0
        for place, token in enumerate(row):
            counted += token != PADDING
            position = place
            if "padding_id" in operator.attributes:
                position = PADDING if token == PADDING else PADDING + counted
            total[text, place] = words[token]
            if o["position"] is not None:
                total[text, place] += o["position"][position]
            if o["segments"] is not None:
                total[text, place] += o["token_type"][o["segments"][text, place]]
    return normalize(total, o["gamma"], o["beta"], 1e-6)


@each
@pytest.mark.parametrize(
    ("segments", "counted", "positioned"),
    [
        (True, False, True),
        (False, False, True),
        (False, True, True),
        (True, True, True),
        (False, False, False),
        (True, False, False),
    ],
)
@pytest.mark.parametrize(
    ("texts", "tokens", "width"), [(1, 1, 16), (1, 16, 384), (3, 7, 37), (70, 2, 8), (5, 33, 144), (0, 4, 16)]
)
def test_embeddings_equal_their_equation(
    texts: int, tokens: int, width: int, segments: bool, counted: bool, positioned: bool, name: str, kernels: str
) -> None:
    operator = embed(name, texts, tokens, width, segments=segments, counted=counted, positioned=positioned)
    y, narrow = operator.run(kernels=kernels)
    expected = in_float64(operator)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    if name == "Embed":
        off = np.abs(narrow - np.clip(expected / float(np.float32(0.031)) + 99, 0, 255))
        assert off.max(initial=0) < 0.51
    else:
        np.testing.assert_array_equal(narrow, (bfloat16(y).astype(np.uint32) << 16).view(np.float32).reshape(y.shape))


@each
@pytest.mark.parametrize("counted", [False, True])
def test_a_text_has_the_same_bits_in_any_batch_and_on_any_threads(name: str, kernels: str, counted: bool) -> None:
    operator = embed(name, 9, 30, 70, counted=counted)
    whole = operator.run(kernels=kernels)
    for text in (0, 4, 8):
        for tokens in (1, 17, 30):  # what follows is padding, or not there
            part = {n: operator.operands[n][text : text + 1, :tokens] for n in operator.inputs}
            for a, b in zip(operator.run(part, kernels=kernels, threads=1), whole, strict=True):
                np.testing.assert_array_equal(a[0], b[text, :tokens])


@each
@pytest.mark.parametrize("operand", ["ids", "segments"])
def test_an_index_outside_of_its_table_is_refused(name: str, kernels: str, operand: str) -> None:
    operator = embed(name, 3, 5, 16)
    rows = {"ids": WORDS, "segments": 2}[operand]
    session = operator.open(kernels=kernels)
    feeds = {n: operator.operands[n] for n in operator.inputs}
    for wrong in (rows, -rows - 1, 2**31, 2**62, -(2**63)):
        for at in (0, 14):
            indices = operator.operands[operand].copy()
            indices.flat[at] = wrong
            with pytest.raises(Exception, match=str(wrong)):
                session.run(None, {**feeds, operand: indices})
    for right in (-rows, -1, rows - 1):  # ONNX counts indices below 0 from the end
        indices = operator.operands[operand].copy()
        indices.flat[7] = right
        changed = dataclasses.replace(operator, operands=operator.operands | {operand: indices})
        found = np.asarray(session.run(None, {**feeds, operand: indices})[0])
        np.testing.assert_allclose(found, in_float64(changed), rtol=2e-5, atol=2e-5)


@each
@pytest.mark.parametrize(("counted", "most"), [(False, POSITIONS), (True, POSITIONS - PADDING - 1)])
def test_a_text_beyond_the_table_of_positions_is_refused(name: str, kernels: str, counted: bool, most: int) -> None:
    operator = embed(name, 2, 3, 16, segments=False, counted=counted)
    session = operator.open(kernels=kernels)
    session.run(None, {"ids": np.full((2, most), 7)})
    with pytest.raises(Exception, match=r"positions|broadcast|bounds"):
        session.run(None, {"ids": np.full((2, most + 1), 7)})
    if counted:  # padding takes no position
        session.run(None, {"ids": np.concatenate([np.full((2, most), 7), np.full((2, 9), PADDING)], axis=1)})


@pytest.mark.parametrize(("name", "level"), [each for each in EMBEDS if each[1] != FUNCTIONS])
def test_operands_that_do_not_fit_are_refused(name: str, level: str) -> None:
    operator = embed(name, 2, 3, 16)

    def changed(**operands: Any) -> Operator:
        return dataclasses.replace(operator, operands=operator.operands | operands)

    short = np.zeros(15, dtype=np.float32)
    for wrong, says in (({"gamma": short}, "as wide"), ({"token_type": short[None]}, "as wide")):
        with pytest.raises(Exception, match=says):
            changed(**wrong).open(kernels=level)
    if name == "Embed":
        with pytest.raises(Exception, match="one scale for each word"):
            changed(scale=short[:, None]).open(kernels=level)
    with pytest.raises(Exception, match="as wide"):
        changed(position=np.zeros((40, 15), dtype=np.float32)).run(kernels=level)
    with pytest.raises(Exception, match="their table is missing"):
        dataclasses.replace(changed(position=None), attributes={"epsilon": 1e-6, "padding_id": 1}).run(kernels=level)
    with pytest.raises(Exception, match="shape of input_ids"):
        operator.run({"segments": np.zeros((3, 2), dtype=np.int64)}, kernels=level)
    with pytest.raises(Exception, match="go together"):
        dataclasses.replace(operator, inputs=("ids", "segments", "token_type")).run(kernels=level)
    moved = dataclasses.replace(operator, inputs=("ids", "segments", "position"))  # it need not be a constant
    for a, b in zip(moved.run(kernels=level), operator.run(kernels=level), strict=True):
        np.testing.assert_array_equal(a, b)


MASKS = [
    [[1]],
    [[0]],
    [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]],
    [[0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
    [[2, 0, 0], [2, 1, 0], [1, 1, -1], [0, 3, 0], [0, 2, 0], [2**32, 1, 0], [2**31, 1, 0]],  # no masks, but the same answer
]


@pytest.mark.parametrize(
    "kernels", [*((Kernels.INT8, level) for level in [*INT8, FUNCTIONS]), *((Kernels.BF16, x) for x in BF16)]
)
def test_lengths_are_those_of_text_or_minus_one(kernels: tuple[Kernels, str]) -> None:
    operator = Operator("Lengths", {"mask": np.ones((1, 1), dtype=np.int64)}, ("mask",), {"lengths": np.int64}, {}, kernels[0])
    session = operator.open(kernels=kernels[1])
    for mask in MASKS[:4]:
        expected = [sum(row) if row == sorted(row, reverse=True) and any(row) else -1 for row in mask]
        assert np.asarray(session.run(None, {"mask": np.array(mask)})[0]).tolist() == expected
    function = operator.open(kernels=FUNCTIONS)
    random = np.random.default_rng(0).integers(0, 2, (200, 5))
    for mask in (np.array(MASKS[4]), random, np.zeros((0, 4), dtype=np.int64)):
        np.testing.assert_array_equal(session.run(None, {"mask": mask})[0], function.run(None, {"mask": mask})[0])
