"""What the plots show, held against the document by way of the plots' own ticks."""

import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from fusedbert.bench.report.page import write_report
from fusedbert.bench.report.page.document import entries
from fusedbert.bench.report.page.ratio import figures
from fusedbert.bench.report.page.scale import figure


def load(name):
    """Import a module that stands beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documents = load("documents")
plotted = load("plotted")
KINDS = {"latency": documents.latency, "startup": documents.startup}


@pytest.fixture
def report(tmp_path):
    """Write a document's report; return the folder."""

    def make(document):
        write_report(document, tmp_path / "report")
        return tmp_path / "report"

    return make


def test_every_measured_contender_is_drawn_and_no_other(report):
    plots = {
        "latency": (["latency", "throughput-by-batch", "throughput-by-length", "time-per-token"], documents.latency()),
        "corpus": (["corpus", "corpus-latency"], documents.corpus()),
        "load": (["load", "load-percentiles"], documents.load()),
        "startup": (["startup"], documents.startup()),
    }
    for keys, document in plots.values():
        document["contenders"][-3]["results"] = document["contenders"][0]["results"]  # wrong, and yet with figures
        document["contenders"][-3]["status"] = "wrong"
        folder = report(document)
        expected = {each["name"] for each in document["contenders"] if each["status"] == "measured"}
        for key in keys:
            groups = [each for each in plotted.parse(folder / f"{key}.svg").iter() if each.get("data-contender")]
            drawn = {each.get("data-contender").split(", ")[0] for each in groups if plotted.classed(each, "mark")}
            assert drawn == expected, key


def test_latency_percentiles_stand_where_the_axis_says(report):
    document = documents.latency()
    shown = plotted.panels(report(document) / "latency.svg")
    assert len(shown) == len(documents.SHAPES)
    for contender in document["contenders"]:
        for result, panel in zip(contender["results"], shown.values(), strict=False):
            scale, row = plotted.axis(panel), plotted.rows(panel)[contender["name"]]
            (dot,), (longer, shorter) = plotted.dots(row), plotted.classed(row, "span")
            assert plotted.near(scale.place(result["p50_ms"], log=True), dot, "data-x")
            assert plotted.near(scale.place(result["p50_ms"], log=True), shorter, "x1")
            assert plotted.near(scale.place(result["p90_ms"], log=True), shorter, "x2")
            assert plotted.near(scale.place(result["p99_ms"], log=True), longer, "x2")
            assert figure(result["p50_ms"]) in plotted.title(dot)
            assert any(each.text == figure(result["p50_ms"]) for each in panel.iter(f"{plotted.SVG}text"))


def test_throughput_and_time_per_token_stand_where_the_axes_say(report):
    document = documents.lengths()
    folder = report(document)
    for key, fixed, across, value in (
        ("throughput-by-batch", "tokens", "batch", lambda result: result["sequences_per_second"]),
        ("throughput-by-length", "batch", "tokens", lambda result: result["sequences_per_second"]),
    ):
        (panel,) = plotted.panels(folder / f"{key}.svg").values()
        x, y = plotted.axis(panel, "x"), plotted.axis(panel, "y")
        for contender in document["contenders"][:3]:
            (line,) = [each for each in plotted.classed(panel, "series") if each.get("data-contender") == contender["name"]]
            results = [each for each in contender["results"] if each[fixed] == (64 if fixed == "tokens" else 1)]
            results.sort(key=lambda result: result[across])
            assert len(plotted.dots(line)) == len(results) > 5
            for dot, result in zip(plotted.dots(line), results, strict=True):
                assert plotted.near(x.place(result[across], log=True), dot, "data-x")
                assert plotted.near(y.place(value(result), log=True), dot, "data-y")
    longer, more = plotted.panels(folder / "time-per-token.svg").values()
    for panel, few in ((longer, lambda result: result["batch"] == 1), (more, lambda result: result["tokens"] == 64)):
        x, y = plotted.axis(panel, "x"), plotted.axis(panel, "y")
        ours = document["contenders"][0]
        (line,) = [each for each in plotted.classed(panel, "series") if each.get("data-contender") == ours["name"]]
        results = sorted(filter(few, ours["results"]), key=lambda result: result["batch"] * result["tokens"])
        costs = []
        for dot, result in zip(plotted.dots(line), results, strict=True):
            tokens = result["batch"] * result["tokens"]
            costs += [1e3 * result["p50_ms"] / tokens] if tokens >= 64 else []
            assert plotted.near(x.place(tokens, log=True), dot, "data-x")
            assert plotted.near(y.place(1e3 * result["p50_ms"] / tokens, log=True), dot, "data-y")
        (guide,) = [each for each in plotted.classed(panel, "guide") if each.tag.endswith("line")]
        assert plotted.near(y.place(1.5 * min(costs), log=True), guide, "y1") and plotted.near(
            x.place(64, log=True), guide, "x1"
        )


@pytest.mark.parametrize("kind", ["latency", "startup"])
def test_ratios_stand_beside_the_line_at_one(report, kind):
    document = KINDS[kind]()
    folder = report(document)
    for ours in ("fusedbert-fp32", "fusedbert-int8"):
        shown = plotted.panels(folder / f"ratio-{ours}.svg")
        ratios = [each for each in document["ratios"] if each["ours"] == ours]
        seen = 0
        for ratio in ratios:
            panel = shown[f"against {ratio['peer']}"] if kind == "latency" else next(iter(shown.values()))
            scale, row = plotted.axis(panel), plotted.rows(panel)[ratio["shape"] if kind == "latency" else ratio["peer"]]
            (dot,), (span,), (line,) = plotted.dots(row), plotted.classed(row, "span"), plotted.classed(panel, "guide")
            assert plotted.near(scale.place(1.0, log=True), line, "x1")
            assert plotted.near(scale.place(ratio["median"], log=True), dot, "data-x")
            assert plotted.near(scale.place(ratio["low"], log=True), span, "x1")
            assert plotted.near(scale.place(ratio["high"], log=True), span, "x2")
            assert ("card" in dot.get("class")) == (ratio["noisy"] * 2 > ratio["pairs"])
            assert (float(dot.get("data-x")) < float(line.get("x1"))) == (ratio["median"] < 1)
            seen += 1
        assert seen == len(ratios) >= 11


def test_bars_are_as_long_as_their_figures(report):
    document = documents.corpus()
    shown = plotted.panels(report(document) / "corpus.svg")
    for contender in document["contenders"]:
        for corpus, panel in shown.items():
            results = [each for each in contender["results"] if each["corpus"] == corpus]
            if not results:
                continue
            best = max(results, key=lambda result: result["texts_per_second"])
            scale, row = plotted.axis(panel), plotted.rows(panel)[contender["name"]]
            (bar,), (span,) = plotted.classed(row, "bar"), plotted.classed(row, "span")
            assert plotted.near(scale.place(0, log=False), bar, "x")
            assert float(bar.get("width")) == pytest.approx(
                scale.place(best["texts_per_second"], log=False) - float(bar.get("x")), abs=3 * plotted.PIXELS
            )
            assert plotted.near(scale.place(min(best["rounds"]), log=False), span, "x1")
            assert len(plotted.dots(row)) == len(results) - 1 + ("16" in best["tried"])


def test_the_parts_of_a_start_add_up(report):
    document = documents.startup()
    shown = plotted.panels(report(document) / "startup.svg")
    assert len(shown) == 3
    times, memory, _ = shown.values()
    for contender in document["contenders"][:-3]:
        (result,) = contender["results"]
        bars = plotted.classed(plotted.rows(times)[contender["name"]], "bar")
        edges = np.cumsum([0, result["interpreter_s"], result["import_s"], result["load_s"], result["first_s"]])
        for bar, start, end in zip(bars, edges[:-1], edges[1:], strict=True):
            assert plotted.near(plotted.axis(times).place(start, log=False), bar, "x")
            width = plotted.axis(times).place(end, log=False) - plotted.axis(times).place(start, log=False)
            assert float(bar.get("width")) == pytest.approx(width, abs=0.5)
        assert len({next(name for name in bar.get("class").split() if name.startswith("p")) for bar in bars}) == 4
        (bar,) = plotted.classed(plotted.rows(memory)[contender["name"]], "bar")
        width = plotted.axis(memory).place(result["peak_mb"], log=False) - float(bar.get("x"))
        assert float(bar.get("width")) == pytest.approx(width, abs=3 * plotted.PIXELS)


def test_load_is_drawn_against_its_budget(report):
    document = documents.load()
    folder = report(document)
    (panel,) = plotted.panels(folder / "load.svg").values()
    x, y = plotted.axis(panel, "x"), plotted.axis(panel, "y")
    lines = {each.get("data-contender"): each for each in plotted.classed(panel, "series")}
    assert set(lines) == {
        "fusedbert-int8, plain",
        "fusedbert-int8, batcher",
        "openvino-int8, plain",
        "transformers-fp32, plain",
    }
    (budget,) = [each for each in plotted.classed(panel, "guide") if each.tag.endswith("line")]
    assert plotted.near(y.place(100, log=True), budget, "y1")
    for contender in document["contenders"][:3]:
        for mode, results in itertools.groupby(contender["results"], key=lambda result: result["mode"]):
            found = list(results)
            for dot, result in zip(plotted.dots(lines[f"{contender['name']}, {mode}"]), found, strict=True):
                assert plotted.near(x.place(result["rate"], log=False), dot, "data-x")
                assert plotted.near(y.place(result["p99_ms"], log=True), dot, "data-y")
                assert ("card" in dot.get("class").split()) == (not result["within_budget"])
    each = plotted.panels(folder / "load-percentiles.svg")
    assert set(each) == set(lines)
    assert all(len(plotted.classed(shown, "series")) == 3 for shown in each.values())


def test_two_of_one_name_are_told_apart(report):
    folder = report(documents.latency(("fusedbert-int8", "fusedbert-int8"), others=False))
    panel = next(iter(plotted.panels(folder / "latency.svg").values()))
    assert set(plotted.rows(panel)) == {"fusedbert-int8", "fusedbert-int8 (2)"}


def test_contenders_of_one_engine_differ_by_marker(report):
    panel = next(iter(plotted.panels(report(documents.latency()) / "latency.svg").values()))
    looks = [
        (
            next(name for name in row.get("class").split() if name != "row"),
            re.sub(r"[-\d.]+", "", plotted.dots(row)[0].get("d", "")),
        )
        for row in plotted.rows(panel).values()
    ]
    ours = [row for row in plotted.rows(panel).values() if row.get("data-contender").startswith("openvino")]
    assert len({plotted.dots(row)[0].tag + plotted.dots(row)[0].get("d", "")[:40] for row in ours}) == 4
    assert len({colour for colour, _ in looks}) == 6


def test_the_ratios_of_starts_say_what_was_timed():
    document = documents.startup()
    assert {each["start"] for each in document["ratios"]} == {"first answer"}
    for made in figures(document, entries(document)):
        assert [panel.title for panel in made.panels] == ["first answer"]
        assert {row[1] for row in made.table.rows} <= {"first answer", "geometric mean"}
