"""``bench load --http``: its client against servers that behave in known ways, and the command from end to end."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import http_servers
import numpy as np
import pytest

from fusedbert.bench.corpus.texts import Corpus
from fusedbert.bench.engines.base import Job
from fusedbert.bench.load import measure as load_run
from fusedbert.bench.load.http import client as http_client
from fusedbert.bench.load.http import measure as http_run
from fusedbert.bench.load.http.client import Client, alone, drive, run, saturate
from fusedbert.bench.load.http.measure import Http, parse_counts
from fusedbert.bench.load.http.protocols import PROTOCOLS
from fusedbert.bench.load.http.servers import SERVERS, ServedEngine, make_server
from fusedbert.bench.load.measure import render
from fusedbert.bench.run import interleave
from fusedbert.bench.run.interleave import Progress, RunSettings, open_run, start
from fusedbert.bench.run.machine import cpu_seconds, family
from fusedbert.bench.run.setup import Lineup
from fusedbert.engine.errors import FusedBertError, OptionError

TEXTS = ("a good film", "a bad film", "so good", "awful")


@pytest.fixture
def job(artifact, tmp_path):
    return Job(checkpoint=None, artifact=artifact, work=tmp_path, device="cpu", threads=1, max_length=64)


@pytest.fixture
def server(job):
    """Start a fake server of a kind; return its port."""
    started = []

    def begin(kind):
        started.append(http_servers.make(kind, job))
        started[-1].load()
        return started[-1].describe()["port"]

    yield begin
    for each in started:
        each.close()


def requests(count, protocol="tei", texts=1):
    return [PROTOCOLS[protocol].request([TEXTS[(n + k) % len(TEXTS)] for k in range(texts)]) for n in range(count)]


def send(port, offsets, *, warm=0.0, grace=5.0, give_up=5.0, keep=0):
    """Drive a server, and return the outcome and the client."""
    made = []

    async def work():
        made.append(Client(port, requests(len(offsets)), keep=keep))
        return await drive(np.asarray(offsets), made[0], warm=warm, grace=grace, give_up=give_up)

    return run(work), made[0]


# The client


@pytest.mark.parametrize("kind", ["quick", "pieces"])
def test_every_request_is_answered_once(server, kind):
    outcome, client = send(server(kind), np.linspace(0, 0.5, 200), keep=200)
    assert (outcome.arrivals, len(outcome.latencies), outcome.kinds, outcome.unfinished) == (200, 200, {}, 0)
    read = PROTOCOLS["tei"].labels
    assert {n: read(json.loads(body)) for n, body in client.answers.items()} == {
        n: [http_servers.label(TEXTS[n % 4])] for n in range(200)
    }


def test_a_refused_request_is_not_an_answer(server):
    outcome, _ = send(server("busy"), np.linspace(0, 0.1, 20))
    assert (outcome.kinds, len(outcome.latencies)) == ({"status 429": 20}, 0)
    assert not outcome.within(60.0)


def test_latency_counts_from_the_arrival_and_not_from_a_free_connection(server):
    """Eight requests at once to a server that takes them one by one: the last waits for all."""
    outcome, _ = send(server("slow"), np.zeros(8))
    assert (np.diff(outcome.latencies) > 0.03).all()
    assert outcome.latencies[-1] > 8 * 0.05


def test_requests_beyond_the_connections_wait_in_the_client(server, monkeypatch):
    monkeypatch.setattr(http_client, "CONNECTIONS", 2)
    outcome, _ = send(server("quick"), np.zeros(50))
    assert (len(outcome.latencies), outcome.kinds, outcome.unfinished) == (50, {}, 0)


def test_the_first_arrivals_do_not_count(server):
    outcome, _ = send(server("quick"), np.linspace(0, 0.4, 41), warm=0.2)
    assert (outcome.arrivals, len(outcome.latencies)) == (21, 21)


def test_a_server_that_hangs_is_given_up(server):
    outcome, _ = send(server("hang"), np.zeros(5), grace=0.2)
    assert (outcome.arrivals, outcome.unfinished, len(outcome.latencies)) == (5, 5, 5)
    assert not outcome.within(0.1)


def test_a_request_on_a_connection_that_was_closed_is_sent_once_more(server):
    outcome, _ = send(server("closing"), np.linspace(0, 0.3, 12))
    assert (len(outcome.latencies), outcome.kinds) == (12, {})


def test_no_server_is_an_error_of_each_request():
    outcome, _ = send(1, np.zeros(3))
    assert outcome.kinds == {"ConnectionRefusedError": 3}


def test_saturation_and_idle_time(server):
    port = server("slow")
    rate = run(lambda: saturate(port, requests(1000), connections=4, seconds=0.5))
    assert 0 < rate < 22  # one by one, 50 ms each
    times, client = run(lambda: alone(port, requests(3), 5.0))
    assert len(times) == 3 and min(times) > 0.04 and not client.errors
    times, client = run(lambda: alone(server("hang"), requests(2), 0.3))
    assert (times, client.errors) == ([], {0: "TimeoutError"})


# Protocols and servers


def test_each_protocol_asks_and_reads_as_its_server_documents():
    bodies = {name: protocol.body(["a", "b"]) for name, protocol in PROTOCOLS.items()}
    assert bodies["tei"] == {"inputs": [["a"], ["b"]]} and PROTOCOLS["tei"].body(["a"]) == {"inputs": "a"}
    assert bodies["infinity"] == {"model": "model", "input": ["a", "b"], "raw_scores": False}
    assert bodies["pipeline"] == {"inputs": ["a", "b"]}
    scores = [{"label": "n", "score": 0.2}, {"label": "p", "score": 0.8}]
    assert (
        PROTOCOLS["tei"].labels([scores, scores[::-1]]) == PROTOCOLS["infinity"].labels({"data": [scores, scores]}) == ["p"] * 2
    )
    assert PROTOCOLS["tei"].labels(scores) == ["p"] and PROTOCOLS["pipeline"].labels([scores[0]]) == ["n"]
    head, _, body = PROTOCOLS["tei"].request(["é"]).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\n") and f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"inputs": "é"}


def test_the_pipeline_behind_fastapi_answers_its_protocol():
    from fastapi.testclient import TestClient

    from fusedbert.bench.load.http.pipeline_server import make_app

    app = TestClient(make_app(lambda texts: [{"label": text.upper(), "score": 1.0} for text in texts]))
    path, body = PROTOCOLS["pipeline"].path, PROTOCOLS["pipeline"].body(["a", "b"])
    assert PROTOCOLS["pipeline"].labels(app.post(path, json=body).json()) == ["A", "B"]
    assert app.get("/health").status_code == 200


@pytest.mark.parametrize("spec", SERVERS, ids=lambda spec: spec.name)
def test_a_servers_command_names_its_port_and_the_record_no_folder(spec, job):
    made = make_server(spec.name, job)
    assert isinstance(made, ServedEngine)
    assert {"4321", "folder"} <= set(made.arguments("folder", "4321"))
    made._model, made._process = 4321, Mock(pid=7)
    described = made.describe()
    assert (described["port"], described["pid"]) == (4321, 7) and described["protocol"] in PROTOCOLS
    assert "MODEL" in described["served_by"] and os.sep not in described["served_by"]


def test_a_server_that_does_not_start_says_why(job):
    with pytest.raises(FusedBertError, match="server of ends did not start: no such model"):
        http_servers.make("ends", job).load()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part of it is Linux's")
def test_a_server_ends_with_the_process_that_started_it(job, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(job.to_json()))
    code = (
        "import json, pathlib, sys, http_servers; from fusedbert.bench.engines.base import Job\n"
        "job = Job.from_json(json.loads(pathlib.Path(sys.argv[1]).read_bytes()))\n"
        "made = http_servers.make('quick', job); made.load(); print(made.describe()['pid'], flush=True); input()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(http_servers.__file__).parent)}
    command = [sys.executable, "-c", code, str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert pid in family(starter.pid) and cpu_seconds([pid]) > 0
        starter.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < until, "the server is still there"
        time.sleep(0.05)


# The benchmark


@pytest.fixture
def measured(job, spec, monkeypatch):
    """Run the benchmark on fake servers, with the labels that they should give."""
    monkeypatch.setattr(interleave, "python_of", lambda _name: Path(sys.executable))
    monkeypatch.setattr(load_run, "LEAST_GRACE", 0.2)
    monkeypatch.setattr(http_run, "SATURATE_SECONDS", 0.1)
    monkeypatch.setattr(http_run, "ARRIVALS", 1)
    ours = Mock(call=lambda *_, **__: {"labels": [http_servers.label(text) for text in TEXTS]})
    monkeypatch.setattr(http_run, "open_ours", lambda _run: contextlib.nullcontext(ours))

    def go(*names, **changes):
        about = {"corpus": Corpus(name="c", texts=TEXTS), "budget": 5.0, "rounds": 1, "seconds": 0.3, "callers": 4}
        about |= {"rates": (40.0, 80.0), **changes}
        lineup = Mock(Lineup, job=job, own=[spec("fusedbert-fp32")], model=Mock(**{"manifest.heads": None}))
        benchmark, folder = Http(lineup, (1, 3), about), Path(http_servers.__file__).parent
        settings = RunSettings(job=job, python_path=(folder,), factories=dict.fromkeys(names, "http_servers:make"))
        with open_run([spec(name) for name in names], settings, Progress(io.StringIO())) as running:
            start(running)
            benchmark.measure(running)
        contenders = [{**process.entry(), **benchmark.entry(process)} for process in running.processes]
        document = {"contenders": contenders, "settings": {"threads": 1, "rounds": 1, **benchmark.settings()}}
        return {each["name"]: each for each in contenders}, document, benchmark

    return go


def test_servers_are_measured_by_size_of_request(measured):
    found, document, benchmark = measured("quick", "wrong", "busy")
    assert {name: each["status"] for name, each in found.items()} == {"quick": "measured", "wrong": "wrong", "busy": "failed"}
    assert "of 400 labels are those of fusedbert's fp32" in found["wrong"]["why"]
    assert "status 429" in found["busy"]["why"]
    quick = found["quick"]
    assert quick["capacity"] == {"1 text": 80.0, "3 texts": 80.0}
    assert (quick["check"]["label_agreement"], quick["check"]["max_abs_logit"]) == (1.0, None)
    assert [(one["mode"], one["rate"]) for one in quick["results"]] == [
        *(("1 text", 40.0), ("1 text", 80.0), ("3 texts", 40.0), ("3 texts", 80.0))
    ]
    for one in quick["results"]:
        assert one["within_budget"] and one["label_agreement"] == 1.0 and one["checked"] > 0
        assert one["client_ms"] > 0 and one["server_ms"] >= 0
    assert not {"port", "pid", "protocol"} & set(quick)
    assert document["settings"]["texts_per_request"] == [1, 3]
    assert any("The client took" in line for line in benchmark.cautions(document))
    machine = {"cpu": "c", "cores": 1, "quota": None, "python": "3", "versions": {}, "load_average": {"before": None}}
    model = {"name": "m", "max_length": 64}
    text = render({**document, "machine": machine, "model": model, "cautions": []})
    assert "requests per second with 99 %" in text and "quick 3 texts" in text


def test_numbers_of_texts_are_parsed():
    assert parse_counts("8, 1,8") == (1, 8)
    for wrong in ("0", "x", "1001", "1.5", "-1"):
        with pytest.raises(OptionError, match="give whole numbers from 1 to 1000"):
            parse_counts(wrong)


def test_the_command_from_end_to_end(fusedbert, artifact, tmp_path):
    """fusedbert's own server, by the engine that labels the texts: every label is as expected."""
    options = ("--http", "--precision", "fp32", "--rates", "30", "--seconds", "0.5", "--budget-ms", "5000", "--json")
    done = fusedbert("bench", "load", "-m", artifact, *options, "--report", tmp_path / "report", check=True)
    document = json.loads(done.stdout)
    (engine,) = document["contenders"]
    assert (document["kind"], engine["status"], engine["title"]) == ("load", "measured", "fusedbert serve fp32")
    assert engine["capacity"] == {"1 text": 30.0, "8 texts": 30.0}
    assert [one["label_agreement"] for one in engine["results"]] == [1.0, 1.0]
    assert str(artifact) not in json.dumps(document["contenders"])
    assert "requests arriving per second" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--texts-per-request", "4"), "give --http too"),
        (("--http", "--texts-per-request", "0"), "whole numbers from 1 to 1000"),
        (("--http", "--mode", "plain"), "takes no --mode"),
        (("--http", "--max-length", "9"), "no --max-length"),
        (("--http", "--against", "optimum"), "unknown engine 'optimum'.*infinity-optimum"),
    ],
)
def test_options_that_do_not_fit_are_refused(fusedbert, artifact, options, message):
    done = fusedbert("bench", "load", "-m", artifact, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr)
