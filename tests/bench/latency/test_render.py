from unittest.mock import Mock

import pytest

from fusedbert.bench.latency.measure import Latency, Plan, render
from fusedbert.bench.report.text import busy_before
from fusedbert.bench.run.setup import Lineup
from fusedbert.bench.run.stats import summarize


def entry(shape="4x16", *, converged=True, share=None, noisy=None):
    batch, tokens = map(int, shape.split("x"))
    figures = vars(summarize([0.01, 0.02, 0.03], batch=batch))
    visit = {**figures, "round": 0, "warm_up": {"converged": converged}, "noisy": noisy}
    return {"shape": shape, "batch": batch, "tokens": tokens, **figures, "share_of_ceiling": share, "rounds": [visit]}


def contender(*results, name="ours", status="measured", why="because"):
    about = {"name": name, "title": name, "precision": "fp32", "device": "cpu", "threads": 2, "status": status, "why": why}
    return {**about, "results": list(results)}


def document(*contenders, load=None, **more):
    found = {
        "machine": {
            "cpu": "A CPU",
            "cores": 2,
            "quota": 1.5,
            "versions": {"numpy": "2.0"},
            "python": "3.11.7",
            "gpus": [],
            "load_average": {"before": load, "after": None},
        },
        "model": {"name": "a-model", "max_length": 64},
        "settings": {"timed": "this", "rounds": 1, "threads": 2},
        "ceiling": None,
        "contenders": list(contenders),
        "ratios": [],
        "summary": [],
        "overhead": None,
        **more,
    }
    benchmark = Latency(Mock(Lineup), Plan(shapes=(), rounds=1, seconds=1.0, samples=1))
    return {**found, "cautions": [*benchmark.cautions(found), *busy_before(found)]}


def test_a_shape_that_never_converged_is_named_under_the_table():
    calm, restless = entry("1x8"), entry("4x16", converged=False)
    assert render(document(contender(calm, restless))).splitlines()[-1].endswith("read with care: ours 4x16.")
    assert "read with care" not in render(document(contender(calm)))


def test_the_table_and_the_document_hold_the_same_figures():
    result = entry(share=0.815)
    assert result["p50_ms"] == pytest.approx(20.0)
    row = next(line for line in render(document(contender(result))).splitlines() if line.startswith("4x16"))
    assert row.split() == ["4x16", "20.0", "28.0", "29.8", "200", "82%", "3"]


def test_the_report_says_what_an_engine_was_compiled_for():
    compiled = {**contender(entry(), name="theirs"), "compiled": "for one shape"}
    assert "theirs was compiled for one shape" in render(document(contender(entry()), compiled)).splitlines()
    assert "compiled" not in render(document(contender(entry()), {**compiled, "compiled": False}))


def test_a_cpu_quota_or_its_absence_is_shown():
    limited = document(contender(entry()))
    assert "CPU quota 1.5" in render(limited)
    assert "no CPU quota" in render({**limited, "machine": {**limited["machine"], "quota": None}})


def test_every_engine_has_its_row_and_every_peer_its_ratio():
    ratio = {"ours": "ours", "peer": "peer", "shape": "1x8", "median": 0.74, "low": 0.72, "high": 0.77, "pairs": 9, "noisy": 0}
    total = {"ours": "ours", "peer": "peer", "geometric_mean": 0.7444, "low": 0.73, "high": 0.76}
    missing = contender(name="gone", status="missing", why="bench setup gone")
    ours, peer = contender(entry("1x8", share=0.5)), contender(entry("1x8"), name="peer")
    text = render(document(ours, peer, missing, ratios=[ratio], summary=[total]))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "ours 20.0 50%" in lines
    assert "peer 20.0 -" in lines
    assert "peer 0.74 (0.72-0.77) 0.74 (0.73-0.76)" in lines
    assert "gone missing: bench setup gone" in lines


def test_without_any_measurement_the_reasons_are_shown():
    text = render(document(contender(status="failed", why="load: out of memory")))
    assert "ours failed: load: out of memory" in text


def test_cautions_are_sentences():
    loud = contender(entry(noisy="20 % above its median"), entry("1x8", share=1.3))
    said = document(loud, load=[3.0, 1.0, 1.0])["cautions"]
    assert said[0] == "1 noisy rounds: ours 4x16 round 1 (20 % above its median)."
    assert "Above the measured ceiling" in said[1]
    assert "ours 1x8 (130%)" in said[1]
    assert "load average 3 on 2 cores" in said[2]


def test_ceiling_and_overhead_and_gpu_are_printed():
    ceiling = {"gemm": {"fp32": 212.5}, "bandwidth_gb_s": 20.1, "how": "so"}
    overhead = {"contender": "ours", "tokens": 16, "text_us": 800.2, "session_us": 700.0, "overhead_us": 99.7, "pairs": 9}
    shown = document(contender(entry()), ceiling=ceiling, overhead=overhead)
    shown["machine"]["gpus"] = [{"name": "A GPU", "driver": "570.1", "memory": "80 GB"}]
    text = render(shown)
    assert "fp32 212.5 billion operations/s; memory 20.1 GB/s" in text
    assert "overhead 100 us with tokenizing" in text
    assert "A GPU, driver 570.1" in text


@pytest.mark.parametrize(("rounds", "said"), [(1, "timed    this; 1 round"), (9, "timed    this; 9 rounds")])
def test_one_round_is_written_in_the_singular(rounds, said):
    shown = document(contender(entry()))
    shown["settings"]["rounds"] = rounds
    assert said in render(shown).splitlines()
