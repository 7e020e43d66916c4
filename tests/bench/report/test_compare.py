import json

import numpy as np
import pytest
from click.testing import CliRunner

from fusedbert.bench.report.compare import compare, figures, find_changes
from fusedbert.bench.report.text import SCHEMA


def document(kind="latency", cpu="A CPU", **times):
    """A document whose contenders have these medians, in ms, for a shape's rounds."""
    contenders = [
        {
            "name": name,
            "status": "measured",
            "results": [{"shape": "1x16", "p50_ms": float(np.median(values)), "rounds": [{"p50_ms": each} for each in values]}],
        }
        for name, values in times.items()
    ]
    machine = {"cpu": cpu, "cores": 2, "versions": {"onnxruntime": "1.32.0"}}
    return {"schema": SCHEMA, "kind": kind, "machine": machine, "model": {}, "settings": {}, "contenders": contenders}


@pytest.fixture
def run(tmp_path):
    """Call the command on two documents."""

    def call(first, second, *arguments):
        paths = []
        for name, content in (("a", first), ("b", second)):
            path = tmp_path / f"{name}.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            paths.append(str(path))
        return CliRunner().invoke(compare, [*paths, *arguments])

    return call


STEADY = [1.0, 1.01, 0.99, 1.0, 1.02]


def test_a_change_beyond_its_interval_is_distinguished_from_noise(run):
    slower, scattered = [1.2 * each for each in STEADY], [0.8, 1.3, 1.0, 0.9, 1.25]
    done = run(document(one=STEADY, two=STEADY), document(one=slower, two=scattered))
    assert done.exit_code == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if "1x16" in line}
    assert rows["one"].endswith("slower")
    assert "+20.0%" in rows["one"]
    assert rows["two"].endswith("same")


@pytest.mark.parametrize(("limit", "status"), [("10", 1), ("25", 0)])
def test_a_regression_beyond_the_limit_exits_with_1(run, limit, status):
    done = run(document(one=STEADY), document(one=[1.2 * each for each in STEADY]), "--fail-above", limit)
    assert done.exit_code == status
    assert f"slower by more than {limit} %: {'one 1x16' if status else 'nothing'}" in done.stdout


def test_another_way_to_compile_is_named(run):
    first, second = document(one=STEADY, two=STEADY), document(one=STEADY, two=STEADY)
    first["contenders"][0]["compiled"], second["contenders"][0]["compiled"] = True, "for one shape"
    differing = json.loads(run(first, second, "--json").stdout)["differing"]
    assert differing == ["one compiled: True and for one shape"]


def test_noise_and_gains_are_not_regressions(run):
    for after in ([0.8, 1.4, 1.1, 0.9, 1.35], [0.5 * each for each in STEADY]):
        assert run(document(one=STEADY), document(one=after), "--fail-above", "5").exit_code == 0


def test_json_has_the_same_verdicts(run):
    done = run(document(one=STEADY), document(one=[1.2 * each for each in STEADY]), "--fail-above", "5", "--json")
    found = json.loads(done.stdout)
    assert found["changes"][0]["verdict"] == "slower"
    assert found["changes"][0]["regression"] is True
    assert found["changes"][0]["change"] == pytest.approx(0.2)


def test_more_texts_per_second_is_faster():
    def corpus(*rates):
        results = [{"corpus": "dev.tsv", "texts_per_second": rates[0], "rounds": list(rates)}]
        return {"kind": "corpus", "contenders": [{"name": "one", "results": results}]}

    (change,) = find_changes(corpus(100.0, 100.0), corpus(200.0, 200.0))
    assert change.verdict == "faster"
    assert change.change == pytest.approx(-0.5)


def test_load_is_compared_by_capacity():
    def load(rate):
        return {"kind": "load", "contenders": [{"name": "one", "capacity": rate, "results": [{"mode": "plain", "rate": 1}]}]}

    assert figures(load({"plain": 40.0, "batcher": 80.0})) == {("one", "plain"): [40.0], ("one", "batcher"): [80.0]}


def test_another_machine_is_named(run):
    done = run(document(one=STEADY), document(cpu="Another", one=STEADY))
    assert "machine cpu: A CPU and Another" in done.stdout


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has the schema None"),
        ('{"schema": "fusedbert.bench.latency.measure/1"}', "fusedbert.bench.latency.measure/1"),
        (document(kind="startup"), "of startup: compare two of a kind"),
        (document(other=STEADY), "no engine and shape in common"),
    ],
)
def test_documents_that_cannot_be_compared_are_refused(run, second, says):
    done = run(document(one=STEADY), second)
    assert done.exit_code == 1
    assert says in str(done.exception)
