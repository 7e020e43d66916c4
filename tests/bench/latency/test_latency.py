import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from fusedbert.bench.engines.batches import Shape, Vocabulary
from fusedbert.bench.latency import task
from fusedbert.bench.latency.measure import Latency, Plan, Visit, results
from fusedbert.bench.latency.roofline import Roofline
from fusedbert.bench.latency.task import whole_words
from fusedbert.bench.run.setup import Lineup, Size
from fusedbert.bench.run.worker import State

VOCABULARY = Vocabulary(first=2, last=3, ordinary=np.arange(5, 1000))
BASE = Size(layers=12, hidden=768, intermediate=3072)
WARM = {"iterations": 10, "seconds": 0.1, "converged": True}


class Recorder:
    """An engine that records its batches and takes almost no time."""

    name = "recorder"

    def __init__(self):
        self.batches = []

    def logits(self, batch):
        self.batches.append(batch.input_ids)
        return np.zeros((len(batch.input_ids), 2), dtype=np.float32)


def state():
    """Return a worker's state, and the engine in it."""
    engine: Any = Recorder()
    return State(engine=engine, vocabulary=VOCABULARY), engine


def visit(held, *, batch=1, tokens=8, seed=(0, 0, 0), seconds=0.001, samples=3):
    request = {"batch": batch, "tokens": tokens, "seed": list(seed), "seconds": seconds, "samples": samples}
    return task.time_shape(held, request)


def test_no_batch_repeats_and_each_has_its_shape():
    held, engine = state()
    for round_number in range(2):
        for place, (batch, tokens) in enumerate([(1, 8), (4, 16)]):
            visit(held, batch=batch, tokens=tokens, seed=(0, round_number, place))
    seen = engine.batches
    assert {array.shape for array in seen} == {(1, 8), (4, 16)}
    assert len({array.tobytes() for array in seen}) == len(seen) > 30


def test_every_engine_is_timed_on_the_same_batches(monkeypatch):
    (one, engine), (two, other) = state(), state()
    first = visit(one, seed=(0, 3, 1))
    monkeypatch.setattr(task, "warm_up", lambda once, cap: [once() for _ in range(50)] and task.WarmUp(**WARM))
    second = visit(two, seed=(0, 3, 1))
    timed = [each.batches[-len(found["seconds"]) :] for each, found in ((engine, first), (other, second))]
    pairs = list(zip(*timed, strict=False))
    assert len(pairs) >= 3
    assert all(np.array_equal(left, right) for left, right in pairs)


def test_only_the_first_visit_to_a_shape_warms_up():
    held, _ = state()
    assert visit(held)["warm_up"]["iterations"] >= 10
    assert visit(held, tokens=9)["warm_up"]["iterations"] >= 10
    later = visit(held, seed=(0, 1, 0))["warm_up"]
    assert later["converged"] == held.warm["1x8"].converged


def test_only_the_engine_is_timed(monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr(task, "perf_counter", lambda: next(clock) * 0.25)
    found = visit(state()[0], seconds=0.5, samples=3)
    assert set(found["seconds"]) == {0.25}
    assert len(found["seconds"]) == 3


def test_a_slow_engine_has_fewer_samples(monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr(task, "perf_counter", lambda: next(clock) * 1.0)
    assert len(visit(state()[0], seconds=0.25, samples=3)["seconds"]) == 2


def rounds(*seconds, others=0.0):
    return [Visit(number=i, seconds=(each,) * 3, warm_up=WARM, others=others) for i, each in enumerate(seconds)]


def paired(entries):
    """Arrange the rounds of an engine's results by number."""
    benchmark = Latency(Mock(Lineup), Plan(shapes=(), rounds=1, seconds=1.0, samples=1))
    return benchmark.rounds_by_engine([{"name": "a", "results": entries}])["a"]


def test_flops_are_those_of_the_matrix_products():
    assert BASE.flops(Shape(batch=1, tokens=1)) == 12 * (24 * 768**2 + 4 * 768) + 2 * 768**2
    tokens, h = 8 * 128, 768
    products = 4 * (2 * tokens * h * h) + 2 * (2 * tokens * 128 * h) + 2 * (2 * tokens * h * 4 * h)  # QKVO, attention, FFN
    assert BASE.flops(Shape(batch=8, tokens=128)) == pytest.approx(12 * products + 8 * 2 * h * h)


@pytest.mark.parametrize("form", [{"layer_types": ["full_attention", *2 * ["sliding_attention"]]}, {}])
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 6, 40])
def test_flops_of_modernbert_count_its_gate_and_only_the_keys_in_the_window(tmp_path, form, tokens):
    config = {"model_type": "modernbert", "num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 24, **form}
    (tmp_path / "config.json").write_text(json.dumps({**config, "local_attention": 8, "global_attn_every_n_layers": 3}))
    size = Size.read(tmp_path / "config.json")
    places = np.arange(tokens)
    seen = int((np.abs(places[:, None] - places) <= 4).sum())  # pairs of a token and a key
    products = 2 * 2 * tokens * (4 * 16 * 16 + 3 * 16 * 24)
    attention = 2 * 2 * 2 * 16 * (tokens**2 + 2 * seen)
    assert size is not None and size.flops(Shape(batch=2, tokens=tokens)) == 3 * products + attention + 2 * 2 * 16**2


@pytest.mark.parametrize(("options", "terms"), [({"pos_att_type": "p2c|c2p"}, 2), ({"pos_att_type": ["c2p"]}, 1), ({}, 0)])
def test_flops_of_deberta_count_its_products_with_distances(tmp_path, options, terms):
    config = {"model_type": "deberta-v2", "num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 24}
    (tmp_path / "config.json").write_text(json.dumps({**config, "relative_attention": True, **options}))
    size = Size.read(tmp_path / "config.json")
    products = 2 * 2 * 7 * (4 * 16 * 16 + 2 * 16 * 24)
    attention = 2 * 2 * (2 + terms) * 16 * 7**2
    assert size is not None and size.flops(Shape(batch=2, tokens=7)) == 3 * (products + attention) + 2 * 2 * 16**2


def test_words_of_byte_pairs_are_those_that_follow_a_space():
    assert whole_words(["Ġgood", "bad", "ĠĠ", "Ġof", "Ġ!!!", "Ġfilm"]) == [" film", " good"]
    assert whole_words(["▁good", "bad", "▁", "▁of"]) == [" good"]
    assert whole_words(["good", "##bad", "of", "!!!", "film"]) == [" film", " good"]


def test_the_share_of_the_ceiling_is_by_precision_and_may_exceed_1():
    shape = Shape(batch=8, tokens=128)
    roofline = Roofline(gemm={"fp32": 1e9 * 200, "int8": 1e9 * 1000}, bandwidth=None, how="")
    seconds = BASE.flops(shape) / 400e9
    for precision, expected in (("fp32", 2.0), ("int8", 0.4), ("int8+bf16", 0.4), ("bf16", None)):
        (entry,) = results({shape: rounds(seconds)}, precision, roofline, BASE)
        assert entry["share_of_ceiling"] == (None if expected is None else pytest.approx(expected))
    (entry,) = results({shape: rounds(seconds)}, "fp32", None, BASE)
    assert entry["share_of_ceiling"] is None


def test_all_samples_count_and_a_noisy_round_is_named():
    shape = Shape(batch=2, tokens=8)
    (entry,) = results({shape: rounds(0.001, 0.001, 0.002)}, "fp32", None, None)
    assert (entry["shape"], entry["samples"], entry["p50_ms"]) == ("2x8", 9, 1.0)
    assert [visit["noisy"] for visit in entry["rounds"]] == [None, None, "100 % above its median"]
    assert paired([entry]) == {"2x8": {0: (1.0, False), 1: (1.0, False), 2: (2.0, True)}}


def test_a_round_that_is_missing_keeps_its_place():
    shape = Shape(batch=1, tokens=8)
    kept = [dataclasses.replace(each, number=number) for each, number in zip(rounds(0.001, 0.002), (0, 2), strict=True)]
    found = paired(results({shape: kept}, "fp32", None, None))["1x8"]
    assert {number: time for number, (time, _) in found.items()} == {0: 1.0, 2: 2.0}


@pytest.mark.parametrize("content", ["[]", "{", "{}", None])
def test_a_model_without_sizes_has_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert Size.read(tmp_path / "config.json") is None
