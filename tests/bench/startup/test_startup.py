import io
import json
import os
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from fusedbert.bench.run import interleave
from fusedbert.bench.run.interleave import Progress, open_run, start
from fusedbert.bench.run.process import EngineFailedError
from fusedbert.bench.run.reference import check
from fusedbert.bench.run.setup import Lineup
from fusedbert.bench.startup import measure as startup_run
from fusedbert.bench.startup.measure import Record, Start, Startup, phases, render, result, run_script
from fusedbert.bench.startup.size import environment_size, needed_size, required

TOTALS = {"right": [0.20, 0.30, 0.25], "slow": [2.0, 3.0, 2.5]}


def found(total, *, logits=((0.0, 1.0),), peak=100_000_000):
    """Return the output of a process that took ``total`` seconds, and half a second more that does not count."""
    parts = {"import_s": 0.5 * total, "load_s": 0.3 * total, "first_s": 0.1 * total}
    times = {"spawned": 100.0, "begun": 100.0 + 0.1 * total, "uncounted_s": 0.5, "first_at": 100.5 + total}
    sizes = {"installed_bytes": 2_000_000, "environment_bytes": 3_000_000}
    return {**times, **parts, "logits": [list(row) for row in logits], "peak_bytes": peak, **sizes}


@pytest.fixture
def measured(settings, checks, spec, monkeypatch):
    """Start fakes without a process and with given times; returns processes, benchmark, and the order of starts."""
    monkeypatch.setattr(interleave, "python_of", lambda _name: Path(sys.executable))

    def go(*wanted, rounds=3, answers=None, fails=()):
        started = []

        def launch(run, entry, *, sizes=False, device=None):
            if entry.name == "fusedbert-fp32":
                assert device == "cpu"
                return found(0.1)
            assert all(process.worker is None for process in run.processes)  # no other part of these engines runs
            started.append((entry.name, sizes))
            times = [name for name, sizes in started if name == entry.name and not sizes]
            if entry.name in fails and len(times) == 2:
                raise EngineFailedError("its process left with status 9")
            logits = (answers or {}).get(entry.name, ((0.0, 1.0),))
            return found(TOTALS[entry.name][len(times) - 1] if times else 99.0, logits=logits)

        monkeypatch.setattr(startup_run, "start_process", launch)
        benchmark = Startup(Mock(Lineup), rounds, "single_label_classification")
        with open_run([spec(name) for name in wanted], settings, Progress(io.StringIO())) as run:
            start(run)
            check(run, checks)
            benchmark.measure(run)
        return {process.name: process for process in run.processes}, benchmark, started

    return go


def test_processes_start_in_turns_and_the_first_of_each_does_not_count(measured):
    processes, benchmark, started = measured("right", "slow")
    assert {str(process.status) for process in processes.values()} == {"measured"}
    assert [name for name, sizes in started if sizes] == ["right", "slow"]
    assert [name for name, sizes in started if not sizes] == ["right", "slow", "slow", "right", "right", "slow"]
    for name, process in processes.items():
        (entry,) = benchmark.entry(process)["results"]
        assert entry["rounds"] == pytest.approx(TOTALS[name])  # time that does not count is left out
        assert entry["total_s"] == pytest.approx(TOTALS[name][2])
        assert entry["import_s"] == pytest.approx(0.5 * TOTALS[name][2])
        assert entry["interpreter_s"] == pytest.approx(0.1 * TOTALS[name][2])
        assert (entry["peak_mb"], entry["installed_mb"], entry["environment_mb"]) == (100.0, 2.0, 3.0)


def test_a_wrong_answer_is_not_timed(measured):
    processes, benchmark, started = measured("right", "slow", answers={"slow": ((1.0, 0.0),)})
    assert str(processes["slow"].status) == "wrong"
    assert benchmark.entry(processes["slow"]) == {"results": []}
    assert [name for name, sizes in started if not sizes] == ["right"] * 3


def test_an_engine_that_fails_keeps_its_starts_and_the_rest_goes_on(measured):
    processes, benchmark, _ = measured("right", "slow", fails=("right",))
    assert (str(processes["right"].status), str(processes["slow"].status)) == ("failed", "measured")
    assert len(benchmark.records["right"].starts) == 1
    assert len(benchmark.records["slow"].starts) == 3


def test_the_phases_sum_up_to_the_total():
    seconds = phases(found(2.0))
    assert sum(value for name, value in seconds.items() if name != "total_s") == pytest.approx(seconds["total_s"])


def test_a_start_on_a_busy_machine_is_noisy():
    one = Start(number=4, seconds=phases(found(1.0)), peak_bytes=5_000_000, others=0.5)
    entry = result(Record(installed_bytes=2, environment_bytes=3, starts=[one]))
    assert entry["round_numbers"] == [4]
    assert "50 % of the CPUs" in entry["noisy"][0]


# Real processes


def script(text):
    return [sys.executable, "-c", text]


def test_the_last_line_of_a_script_is_its_answer():
    before = time.time()
    answer = run_script(script("print('noise'); print('{\"a\": 1}')"), os.environ, 60.0)
    assert answer["a"] == 1
    assert before <= answer["spawned"] <= time.time()


@pytest.mark.parametrize(
    ("text", "timeout", "words"),
    [
        ("import sys; sys.exit('no such engine')", 60.0, "left with status 1: no such engine"),
        ("import os; os.abort()", 60.0, "left with status -6"),
        ("import time; time.sleep(60)", 0.5, "no answer within"),
        ("print('hello')", 60.0, "answered with something else"),
        ("print('[1]')", 60.0, "answered with something else"),
        ("pass", 60.0, "answered with something else"),
    ],
)
def test_a_failed_script_is_one_line(text, timeout, words):
    with pytest.raises(EngineFailedError, match=words) as caught:
        run_script(script(text), os.environ, timeout)
    assert "\n" not in str(caught.value)


def test_peak_memory_is_that_of_the_started_process():
    spec = str(startup_run.SCRIPT)
    code = (
        f"import runpy; peak = runpy.run_path({spec!r})['_peak']; {{}}; import json; print(json.dumps({{{{'peak': peak()}}}}))"
    )
    ballast = bytearray(200_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])  # resident
    small = run_script(script(code.format("pass")), os.environ, 60.0)["peak"]
    large = run_script(script(code.format("b = bytearray(b'x') * 100_000_000")), os.environ, 60.0)["peak"]
    assert 2_000_000 < small < 100_000_000
    assert large - small == pytest.approx(100_000_000, rel=0.1)
    assert len(ballast) == 200_000_000


@pytest.fixture(scope="module")
def document(fusedbert, artifact):
    command = ("bench", "startup", "-m", artifact, "--precision", "fp32", "--threads", "1", "--rounds", "2", "--json")
    return json.loads(fusedbert(*command, check=True).stdout)


def test_the_document_of_the_embedded_default(document):
    assert (document["schema"], document["kind"]) == ("fusedbert.bench/2", "startup")
    (engine,) = document["contenders"]
    assert (engine["name"], engine["status"]) == ("fusedbert-fp32", "measured")
    (entry,) = engine["results"]
    assert len(entry["rounds"]) == 2
    for each in entry["starts"]:
        parts = [each[name] for name in ("interpreter_s", "import_s", "load_s", "first_s")]
        assert all(part > 0 for part in parts)
        assert sum(parts) <= each["total_s"] + 1e-6
    assert entry["peak_mb"] > 50
    assert 40 < entry["installed_mb"] <= 2_000


def test_the_table_and_the_document_agree(document):
    text = render(document)
    (entry,) = document["contenders"][0]["results"]
    assert f"{entry['total_s']:.3f}" in text
    assert "installed MB" in text


# Size


def test_size_counts_hard_links_once_and_leaves_pip_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a" / "one", tmp_path / "two")
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "big").write_bytes(b"x" * 5000)
    (tmp_path / "pip-24.0.dist-info").mkdir()
    (tmp_path / "pip-24.0.dist-info" / "RECORD").write_bytes(b"x" * 300)
    (tmp_path / "pipeline").write_bytes(b"x" * 70)
    assert environment_size([tmp_path]) == 1070
    assert environment_size([tmp_path / "none"]) == 0


def test_a_module_needs_its_distribution_and_the_requirements_of_that():
    assert {"tokenizers", "huggingface-hub", "tqdm"} <= required(["tokenizers"])
    assert required(["no-such-distribution"]) == set()
    numpy, both = (needed_size(names, fusedbert=False) for names in (["numpy.linalg"], ["numpy", "tokenizers", "json"]))
    assert 10_000_000 < numpy < both
    assert needed_size(["fusedbert.bench", "json"], fusedbert=False) == 0
    assert needed_size(["json"], fusedbert=True) > 30_000_000  # with the embedded checkpoint


def test_results_are_plain():
    one = Start(number=0, seconds=phases(found(1.0)), peak_bytes=1, others=None)
    json.dumps(result(Record(installed_bytes=2, environment_bytes=3, starts=[one])), allow_nan=False)
