"""Engines with a process for each shape: what each process sees, failures of one of them, and the document's part."""

import collections
import dataclasses
import io
import types
from typing import Any

import pytest

from fusedbert.bench.engines.batches import parse_shapes
from fusedbert.bench.latency.measure import Latency, Plan
from fusedbert.bench.latency.rank.measure import Rank
from fusedbert.bench.run.interleave import EngineProcess, Progress, Status, open_run, start
from fusedbert.bench.run.parts import by_engine, entry, not_measured
from fusedbert.bench.run.reference import check

SHAPES = parse_shapes("1x8,2x9,1x30")
NAMES = list(map(str, SHAPES))
PLAN = Plan(shapes=SHAPES, rounds=3, seconds=0.005, samples=2)
CHECK = {"texts": 3, "max_abs_logit": 0.1, "tolerance": 0.5, "label_agreement": 1.0, "reference": "x"}


def benchmark(kind=Latency, settings=None):
    lineup: Any = types.SimpleNamespace(model=types.SimpleNamespace(size=None), own=(), job=settings and settings.job)
    return kind(lineup, PLAN)


@pytest.fixture
def measured(settings, checks, spec):
    """Measure fakes, each with a process for each shape; returns the document's parts by name, and what stderr got."""

    def go(*names, shapes=SHAPES):
        made, stream = benchmark(settings=settings), io.StringIO()
        assert made.run_settings().shapes == SHAPES
        with open_run(
            [spec(name, per_shape=name != "right") for name in names],
            dataclasses.replace(settings, shapes=shapes),
            Progress(stream),
        ) as run:
            start(run)
            check(run, checks)
            made.measure(run)
        entries = {each[0].name: {**entry(each), **made.entry(each[0])} for each in by_engine(run.processes)}
        return entries, made.cautions({"contenders": list(entries.values())}), stream.getvalue()

    return go


def seen(settings):
    """The shapes that each process was asked for."""
    found = collections.defaultdict(set)
    for line in (settings.job.work / "seen").read_text().splitlines():
        pid, *shapes = line.split()
        found[pid].update([tuple(shapes)])
    return list(found.values())


def test_each_shape_has_its_process_which_sees_no_other(measured, settings):
    entries, _, printed = measured("compiled", "right")
    assert sorted(seen(settings), key=str) == sorted([{(each, each)} for each in NAMES], key=str)
    compiled, right = entries["compiled"], entries["right"]
    assert (compiled["status"], compiled["why"], printed) == ("measured", "asked", "")
    for each in (compiled, right):
        assert [result["shape"] for result in each["results"]] == NAMES
        assert all([visit["round"] for visit in result["rounds"]] == [0, 1, 2] for result in each["results"])
    assert [(each["shape"], each["status"]) for each in compiled["processes"]] == [(name, "measured") for name in NAMES]
    assert [each["check"]["texts"] for each in compiled["processes"]] == [1, 2, 1]  # of its length
    assert compiled["check"]["texts"] == 4 and compiled["check"]["tolerance"] == right["check"]["tolerance"]
    assert compiled["load_seconds"] == sum(each["load_seconds"] for each in compiled["processes"])
    assert "processes" not in right


def test_where_shapes_are_not_known_one_process_takes_all(measured, settings):
    entries, _, _ = measured("compiled", shapes=())
    (all_of_it,) = seen(settings)
    assert {shape for shape, _ in all_of_it} >= set(NAMES) and {only for _, only in all_of_it} == {"None"}
    assert "processes" not in entries["compiled"]
    assert benchmark(Rank, settings).run_settings().shapes == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("compiles-some", "2x9 failed: open: RuntimeError: no graph of 2x9"),
        ("crashes-later", "2x9 failed: latency: its process left with status 7"),
    ],
)
def test_a_shape_that_fails_is_reported_and_the_others_are_measured(measured, name, why):
    entries, cautions, printed = measured(name, "right")
    found = entries[name]
    assert found["status"] == "measured" and found["why"].startswith(why)
    assert [each["status"] for each in found["processes"]] == ["measured", "failed", "measured"]
    assert printed == f"{name} {found['why']}\n"
    assert cautions[0] == f"Not measured to the end: {name} {found['why']}."
    done = {result["shape"]: len(result["rounds"]) for result in found["results"]}
    assert (done["1x8"], done["1x30"]) == (3, 3) and done.get("2x9", 0) < 3
    assert len(entries["right"]["results"]) == 3


def test_every_process_is_checked(measured):
    entries, _, _ = measured("wrong", "right")
    wrong = entries["wrong"]
    assert (wrong["status"], wrong["results"]) == ("wrong", [])
    assert all("off the reference" in each["why"] for each in wrong["processes"])
    assert wrong["check"]["max_abs_logit"] > wrong["check"]["tolerance"]


def test_a_reason_that_all_shapes_share_is_given_once(measured):
    entries, cautions, _ = measured("needs", "right")
    assert entries["needs"]["status"] == "missing"
    assert entries["needs"]["why"].count("a_package_that_is_not_there") == 1
    assert not any("Not measured" in each for each in cautions)


def test_ctrl_c_leaves_all_interrupted_but_those_that_had_failed(spec):
    processes = [EngineProcess(spec=spec("compiled"), shape=shape) for shape in SHAPES]
    processes[1].end(Status.FAILED, "no graph")
    found = entry(processes)
    assert (found["status"], found["check"], found["load_seconds"]) == ("interrupted", None, None)
    assert "2x9 failed: no graph" in found["why"] and "1x8 interrupted" in found["why"]
    assert not_measured(found) == []


def test_the_worst_check_of_all_shapes_counts(spec):
    checks = ({}, {"max_abs_logit": 0.4, "texts": 5}, {"label_agreement": 0.99})
    found = entry(
        [
            EngineProcess(spec=spec("compiled"), shape=shape, status=Status.MEASURED, check={**CHECK, **changes})
            for shape, changes in zip(SHAPES, checks, strict=True)
        ]
    )
    assert found["check"] == {**CHECK, "texts": 11, "max_abs_logit": 0.4, "label_agreement": 0.99}
