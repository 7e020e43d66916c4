"""The plots show what the document says: the data of matplotlib's artists, colours, axes."""

import itertools

import documents
import numpy as np
import pytest

from fusedbert.bench.report.plots import COLOURS, PHASES, WITHIN, plots
from fusedbert.bench.report.svg import INK, drawing
from fusedbert.bench.report.text import number


def drawn(document):
    """Return the plots by key."""
    with drawing():
        return {plot.key: plot for plot in plots(document)}


def marks(axes, label=None):
    """Return the points of lines with a marker, those of a label or all."""
    lines = [line for line in axes.lines if line.get_marker() != "None" and label in (None, line.get_label())]
    return [tuple(map(float, point)) for line in lines for point in line.get_xydata()]


def names_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()] or names_of(axes.figure.axes[0])


def in_row(axes, name):
    """Return the lines of a row of an axes, in the order of drawing."""
    row = names_of(axes).index(name)
    return [line for line in axes.lines if len(line.get_ydata()) and set(line.get_ydata()) == {row}]


def notes(axes):
    return [text.get_text() for text in axes.texts]


def test_every_measured_engine_is_drawn_and_no_other():
    curves = ("throughput-by-batch", "throughput-by-length", "time-per-token", "load")
    for document in (documents.latency(), documents.corpus(), documents.load(), documents.startup()):
        wrong = document["contenders"][-3]  # and yet with figures
        wrong |= {"results": document["contenders"][0]["results"], "status": "wrong"}
        measured = {each["name"] for each in document["contenders"] if each["status"] == "measured"}
        for key, plot in drawn(document).items():
            axes = plot.figure.axes[0]
            if key in curves:
                assert {line.get_label().split(", ")[0] for line in axes.lines if line.get_label()[0] != "_"} == measured
            elif key == "load-percentiles":
                assert {each.get_title("left").split(", ")[0] for each in plot.figure.axes} == measured
            elif not key.startswith("ratio"):
                rows = {int(y) for _, y in marks(axes)} | {round(bar.get_y() + bar.get_height() / 2) for bar in axes.patches}
                assert {names_of(axes)[row] for row in rows} == set(names_of(axes)) == measured
            if not key.startswith("ratio"):
                assert {row[0].split(", ")[0] for row in plot.rows} == measured


def test_latency_percentiles_are_those_of_the_document():
    document = documents.latency()
    panels = drawn(document)["latency"].figure.axes
    assert [axes.get_title("left") for axes in panels][:2] == ["1 text of 16 tokens", "1 text of 128 tokens"]
    assert len(panels) == len(documents.SHAPES)
    for contender in document["contenders"]:
        for result, axes in zip(contender["results"], panels, strict=False):
            longer, shorter, dot = in_row(axes, contender["name"])
            assert list(longer.get_xdata()) == [result["p50_ms"], result["p99_ms"]]
            assert list(shorter.get_xdata()) == [result["p50_ms"], result["p90_ms"]]
            assert list(dot.get_xdata()) == [result["p50_ms"]]
            assert number(result["p50_ms"]) in notes(axes)
            assert axes.get_xscale() == "log" and axes.get_xlim()[0] < result["p50_ms"] < result["p99_ms"] < axes.get_xlim()[1]


def test_throughput_and_time_per_token_are_those_of_the_document():
    document = documents.lengths()
    found = drawn(document)
    for key, fixed, across in (("throughput-by-batch", "tokens", "batch"), ("throughput-by-length", "batch", "tokens")):
        (axes,) = found[key].figure.axes
        for contender in document["contenders"][:3]:
            results = [each for each in contender["results"] if each[fixed] == (64 if fixed == "tokens" else 1)]
            results.sort(key=lambda result: result[across])
            assert len(results) > 5
            assert marks(axes, contender["name"]) == [(each[across], each["sequences_per_second"]) for each in results]
    longer, more = found["time-per-token"].figure.axes
    ours = document["contenders"][0]
    for axes, few in ((longer, lambda result: result["batch"] == 1), (more, lambda result: result["tokens"] == 64)):
        results = sorted(filter(few, ours["results"]), key=lambda result: result["batch"] * result["tokens"])
        sizes = [each["batch"] * each["tokens"] for each in results]
        costs = [1e3 * each["p50_ms"] / size for each, size in zip(results, sizes, strict=True)]
        assert marks(axes, ours["name"]) == list(zip(sizes, costs, strict=True))
        (guide,) = [line for line in axes.lines if line.get_linestyle() == ":" and line.get_marker() == "None"]
        best = min(cost for size, cost in zip(sizes, costs, strict=True) if size >= 64)
        assert guide.get_xdata()[0] == 64 and list(guide.get_ydata()) == [WITHIN * best] * 2


@pytest.mark.parametrize("kind", ["latency", "startup"])
def test_ratios_stand_next_to_the_line_at_one(kind):
    document = {"latency": documents.latency, "startup": documents.startup}[kind]()
    found = drawn(document)
    for ours in ("fusedbert-fp32", "fusedbert-int8"):
        panels = {axes.get_title("left"): axes for axes in found[f"ratio-{ours}"].figure.axes}
        ratios = [each for each in document["ratios"] if each["ours"] == ours]
        assert len(ratios) >= 11
        for ratio in ratios:
            axes = panels[f"against {ratio['peer']}" if kind == "latency" else "first answer"]
            span, dot = in_row(axes, ratio["shape"] if kind == "latency" else ratio["peer"])
            assert list(span.get_xdata()) == [ratio["low"], ratio["high"]]
            assert list(dot.get_xdata()) == [ratio["median"]]
            assert (dot.get_markerfacecolor() == "none") == (ratio["noisy"] * 2 > ratio["pairs"])
            assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)
        if kind == "latency":
            axes = panels["against openvino-int8"]
            (mean,) = [each for each in document["summary"] if each["ours"] == ours and each["peer"] == "openvino-int8"]
            assert list(in_row(axes, "geometric mean")[1].get_xdata()) == [mean["geometric_mean"]]


def test_the_ratios_of_starts_say_what_was_timed():
    document = documents.startup()
    assert {each["start"] for each in document["ratios"]} == {"first answer"}
    for plot in (plot for key, plot in drawn(document).items() if key.startswith("ratio")):
        assert [axes.get_title("left") for axes in plot.figure.axes] == ["first answer"]
        assert {row[1] for row in plot.rows} == {"first answer", "geometric mean"}


def test_bars_are_as_long_as_their_figures():
    document = documents.corpus()
    (axes,) = drawn(document)["corpus"].figure.axes
    for row, contender in enumerate(document["contenders"][:-3]):
        (result,) = contender["results"]
        bar = axes.patches[row]
        assert (bar.get_x(), bar.get_width()) == (0, result["texts_per_second"])
        (segment,) = axes.collections[row].get_segments()
        assert sorted(segment[:, 0]) == pytest.approx([min(result["rounds"]), max(result["rounds"])])
        tried = [value for size, value in result["tried"].items() if size != "32"]
        assert sorted(x for x, y in marks(axes) if y == row and x in tried) == sorted(tried)
    assert all("91.0 %" in note for note in notes(axes))


def test_the_parts_of_a_start_add_up():
    document = documents.startup()
    times, memory, size = drawn(document)["startup"].figure.axes
    for row, contender in enumerate(document["contenders"][:-3]):
        (result,) = contender["results"]
        bars = times.patches[len(PHASES) * row : len(PHASES) * (row + 1)]
        edges = np.cumsum([0.0, result["interpreter_s"], result["import_s"], result["load_s"], result["first_s"]])
        assert [bar.get_x() for bar in bars] == pytest.approx(edges[:-1])
        assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx(edges[1:])
        assert len({bar.get_facecolor() for bar in bars}) == 4
        assert memory.patches[row].get_width() == result["peak_mb"]
        assert size.patches[row].get_width() == result["installed_mb"]


def test_load_is_drawn_against_its_budget():
    document = documents.load()
    found = drawn(document)
    (axes,) = found["load"].figure.axes
    lines = {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}
    assert set(lines) == {
        "fusedbert-int8, plain",
        "fusedbert-int8, batcher",
        "openvino-int8, plain",
        "transformers-fp32, plain",
    }
    assert any(list(line.get_ydata()) == [100, 100] for line in axes.lines)
    filled = {tuple(point) for line in axes.lines if line.get_linestyle() == "None" for point in line.get_xydata()}
    for contender in document["contenders"][:3]:
        for mode, results in itertools.groupby(contender["results"], key=lambda result: result["mode"]):
            points = {(each["rate"], each["p99_ms"]): each["within_budget"] for each in results}
            assert marks(axes, f"{contender['name']}, {mode}") == list(points)
            assert all((point in filled) == kept for point, kept in points.items())
    panels = {each.get_title("left"): each for each in found["load-percentiles"].figure.axes}
    assert set(panels) == set(lines)
    for name, panel in panels.items():
        assert {line.get_label() for line in panel.lines if line.get_label()[0] != "_"} == {"p50", "p90", "p99"}
        contender = next(each for each in document["contenders"] if each["name"] == name.split(", ")[0])
        capacity = contender["capacity"][name.split(", ")[1]]
        assert any(list(line.get_xdata()) == [capacity] * 2 for line in panel.lines)


def test_a_load_without_an_answer_or_a_capacity_is_drawn():
    document = documents.load(documents.FEW[:1])
    ours = document["contenders"][0]
    ours["results"][0] |= dict.fromkeys(("p50_ms", "p90_ms", "p99_ms"))
    ours["capacity"]["plain"] = None
    (axes,) = drawn(document)["load"].figure.axes
    assert len(marks(axes, "fusedbert-int8, plain")) == len(ours["results"]) / 2 - 1


def test_an_engine_that_runs_twice_has_two_rows():
    document = documents.latency(("fusedbert-int8", "fusedbert-int8"), others=False)
    document["contenders"][1]["name"] = "fusedbert-int8-again"
    axes = drawn(document)["latency"].figure.axes[0]
    assert names_of(axes) == ["fusedbert-int8", "fusedbert-int8-again"]


def test_rows_of_one_engine_differ_by_marker():
    axes = drawn(documents.latency())["latency"].figure.axes[0]
    dots = {name: in_row(axes, name)[-1] for name in names_of(axes)}
    assert len({dot.get_marker() for name, dot in dots.items() if name.startswith("openvino")}) == 4
    assert len({dot.get_color() for dot in dots.values()}) == 6


def test_ticks_are_few_readable_and_inside():
    for document in (documents.latency(), documents.lengths(), documents.corpus(), documents.load(), documents.startup()):
        for plot in drawn(document).values():
            for axes in plot.figure.axes:
                for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                    if axis.get_scale() == "log":
                        ticks = axis.get_majorticklocs()
                        labels = [label.get_text() for label in axis.get_majorticklabels()]
                        assert 2 <= len(ticks) <= 12 and all(limits[0] <= tick <= limits[1] for tick in ticks), plot.key
                        assert not labels or [float(label.replace(",", "")) for label in labels] == pytest.approx(ticks)


MACHADO = {
    "usual": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize(("ink", "papers"), [("#22252a", ["#fbfaf8", "#ffffff"]), ("#e6e4df", ["#14161a", "#1b1e23"])])
def test_the_colours_differ_under_every_colour_vision(ink, papers):
    for group in (COLOURS.values(), PHASES.values()):
        colours = [ink if colour == INK else colour for colour in group]
        for sight in MACHADO.values():
            seen = [oklab(np.asarray(sight) @ linear(colour)) for colour in colours]
            assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.1
        assert min(contrast(colour, paper) for colour in colours for paper in papers) >= 3
    assert min(contrast(ink, paper) for paper in papers) >= 7


def linear(colour):
    value = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(colour):
    """Björn Ottosson's OKLab, in which distances are about as large as they look."""
    cone = np.cbrt(
        np.array(
            [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
        )
        @ np.clip(colour, 0, 1)
    )
    turn = [[0.21045426, 0.79361778, -0.00407205], [1.9779985, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]]
    return np.array(turn) @ cone
