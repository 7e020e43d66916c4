import dataclasses

import pytest

from fusedbert.bench.latency import Round, ShapeLatency
from fusedbert.bench.report import contender_entry, render
from fusedbert.bench.shapes import Shape
from fusedbert.bench.table import format_table, milliseconds
from fusedbert.bench.timing import WarmUp, summarize


def entry(shape, *, converged):
    warm = WarmUp(iterations=10, seconds=0.1, converged=converged)
    summary = summarize([0.01, 0.02, 0.03], batch=shape.batch)
    return ShapeLatency(shape=shape, summary=summary, rounds=(Round(warm_up=warm, summary=summary),))


def document(*results):
    description = {"device": "cpu", "precision": "fp32", "threads": 2, "why": "because"}
    return {
        "machine": {
            "cpu": "A CPU",
            "cores": 2,
            "quota": 1.5,
            "versions": {"numpy": "2.0"},
            "python": "3.11.7",
            "load_average": {"before": None, "after": None},
        },
        "model": {"name": "a-model", "max_length": 64},
        "settings": {"timed": "this", "rounds": 1},
        "contenders": [contender_entry("ours", description, results)],
    }


def test_a_shape_that_never_settled_is_named_under_the_table():
    calm, restless = entry(Shape(batch=1, tokens=8), converged=True), entry(Shape(batch=4, tokens=16), converged=False)
    assert render(document(calm, restless)).splitlines()[-1].endswith("read with care: 4x16.")
    assert "read with care" not in render(document(calm))


def test_the_table_and_the_document_hold_the_same_figures():
    result = entry(Shape(batch=4, tokens=16), converged=True)
    assert contender_entry("ours", {}, [result])["results"][0]["p50_ms"] == pytest.approx(20.0)
    row = next(line for line in render(document(result)).splitlines() if line.startswith("4x16"))
    assert row.split() == ["4x16", "20.0", "28.0", "29.8", "200", "3"]


def test_a_quota_is_shown_and_so_is_its_absence():
    limited = document(entry(Shape(batch=1, tokens=8), converged=True))
    assert "CPU quota 1.5" in render(limited)
    free = {**limited, "machine": {**limited["machine"], "quota": None}}
    assert "no CPU quota" in render(free)


def test_the_document_of_a_shape_has_all_fields_of_its_parts():
    result = entry(Shape(batch=4, tokens=16), converged=True)
    written = contender_entry("ours", {}, [result])["results"][0]
    for part in (result.shape, result.summary):
        for name, value in dataclasses.asdict(part).items():
            assert written[name] == value


def test_columns_line_up():
    lines = format_table(["name", "n"], [["a", "1"], ["longer", "1000"]]).splitlines()
    assert lines == ["name       n", "------  ----", "a          1", "longer  1000"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0414, "0.041"), (0.412, "0.412"), (8.314, "8.31"), (61.23, "61.2"), (432.7, "433")]
)
def test_milliseconds_have_three_digits_or_so(value, text):
    assert milliseconds(value) == text
