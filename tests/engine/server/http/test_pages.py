"""/predict with one model, the numbers for monitoring, the log, several processes, and the page in a browser."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import FUSEDBERT
from prometheus_client.parser import text_string_to_metric_families
from service_process import Service, running_service, wait_for

from fusedbert.engine import Classifier

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')
pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')


@pytest.fixture(scope="module")
def server(embedded: Path) -> Iterator[Service]:
    """A server, which must end in order at SIGINT."""
    with running_service(embedded, "--access-log", "--log-format", "json") as service:
        yield service
        service.stop(signal.SIGINT)


def test_the_server_answers_as_text_embeddings_inference(server: Service, embedded: Path) -> None:
    with Classifier.from_pretrained(embedded, threads=1) as clf:
        for inputs, items in (
            ("I loved it.", "I loved it."),
            (["I loved it."], "I loved it."),
            (["I loved it.", "Not me."], ("I loved it.", "Not me.")),
            ([["I loved it."], ["A bore."], ["a", "b"]], ["I loved it.", "A bore.", ("a", "b")]),
        ):
            status, found = server.post({"inputs": inputs})
            expected = clf(items, top_k=None)
            assert status == 200
            pairs = zip(found, expected, strict=True) if isinstance(items, list) else [(found, expected)]
            for one, other in pairs:
                assert [each["label"] for each in one] == [each["label"] for each in other]
                assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=1e-3)
        _, raw = server.post({"inputs": "I loved it.", "raw_scores": True})
        assert raw[0]["score"] == pytest.approx(clf("I loved it.", top_k=1, function_to_apply="none")[0]["score"], abs=1e-2)


def test_a_long_text_is_cut_only_where_that_is_asked_for(server: Service, embedded: Path) -> None:
    status, found = server.post({"inputs": "word " * 600})
    assert status == 413 and "602 tokens" in found["error"]
    assert server.post({"inputs": "word " * 600, "truncate": True})[0] == 200
    with running_service(embedded, "--long-text", "truncate") as other:
        assert other.post({"inputs": "word " * 600})[0] == 200
        assert other.post({"inputs": "word " * 600, "truncate": None})[0] == 200


def test_many_requests_at_once_are_answered(server: Service) -> None:
    texts = [f"{'good ' * (i % 7)}film" for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: server.post({"inputs": text}), texts))
    assert {status for status, _ in found} == {200}
    assert found[3] == found[10] == found[17]  # the same text, whatever ran at the same time


def test_the_numbers_are_of_what_was_asked(server: Service) -> None:
    before = server.metrics()
    server.post({"inputs": [["a"], ["b"]]})
    server.post({})
    server.post({}, "/nowhere/" + "x" * 1000)
    after = server.metrics()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    model = '{model="sst2-mini"}'
    assert grown[f"fusedbert_batcher_answered_total{model}"] == grown[f"fusedbert_texts_total{model}"] == 2
    assert grown['http_requests_total{path="/predict",status="200"}'] == 1
    assert grown['http_requests_total{path="/predict",status="422"}'] == 1
    assert grown['http_requests_total{path="other",status="404"}'] == 1
    seconds = "http_request_duration_seconds"
    assert grown[f'{seconds}_count{{path="/predict"}}'] == 2 == grown[f'{seconds}_bucket{{path="/predict",le="+Inf"}}']


def test_the_parser_of_prometheus_reads_the_metrics(server: Service) -> None:
    server.post({"inputs": "good"})
    server.metrics()  # itself a path that is counted
    document = server.get("/metrics")
    families = list(text_string_to_metric_families(document))
    assert len({each.name for each in families}) == len(families) == document.count("# TYPE ")
    kinds = {each.name: each.type for each in families}
    assert kinds["http_requests"] == "counter" and kinds["http_request_duration_seconds"] == "histogram"
    samples = [sample for each in families for sample in each.samples]
    assert len(samples) == len(server.metrics())
    of_model = {sample.name for sample in samples if sample.labels == {"model": "sst2-mini"}}
    assert of_model >= {"fusedbert_batcher_answered_total", "fusedbert_batcher_waiting", "fusedbert_texts_total"}


def ask_and_read(service: Service) -> list[str]:
    """Return the log of three requests, of which two are odd."""
    service.post({"inputs": "secret words"})
    service.post({"inputs": "secret words", "model": ["\n" * 10_000]})
    service.post({"inputs": "secret words", "model": "\n" * 10_000, "secret": 1})
    service.post({"inputs": "a"}, "/nowhere/%0aforged")
    wait_for(lambda: "forged" in service.output())
    lines = service.output().splitlines()
    assert "secret words" not in service.output() and max(map(len, lines)) < 1000
    return [line for line in lines if "/predict" in line or "/nowhere" in line][-4:]


def test_the_log_has_a_line_of_json_for_each_request_and_no_text_of_it(server: Service) -> None:
    lines = [json.loads(line) for line in ask_and_read(server)]
    assert [(each["method"], each["path"], each["status"]) for each in lines] == [
        ("POST", "/predict", 200),
        ("POST", "/predict", 422),
        ("POST", "/predict", 422),
        ("POST", "/nowhere/\nforged", 404),
    ]
    assert all(each["ms"] > 0 and each["client"] == "127.0.0.1" for each in lines)


def test_nothing_that_a_client_sends_begins_a_line_of_the_log(artifact: Path) -> None:
    with running_service(artifact, "--access-log") as service:
        lines = ask_and_read(service)
        assert len(lines) == 4 and all(line.startswith("fusedbert: request method=POST") for line in lines)


def test_several_processes_answer_as_one(artifact: Path) -> None:
    with running_service(artifact, "--workers", "2") as service:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(service.post, [{"inputs": "good"}] * 200))
        assert {status for status, _ in found} == {200} and all(each == found[0] for each in found)
        wait_for(lambda: len([name for name in service.metrics() if "batcher_answered" in name]) == 2)
        assert service.texts("answered") >= 200


def test_a_process_that_dies_is_started_again_and_the_log_says_so(artifact: Path) -> None:
    with running_service(artifact, "--workers", "2", "--log-format", "json") as service:
        service.post({"inputs": "good"})
        wait_for(lambda: len({name for name in service.metrics() if "batcher_answered" in name}) == 2)
        killed = service.processes()[-1]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: f"process {killed} ended with -9, and another takes its place" in service.output())
        wait_for(lambda: len({name for name in service.metrics() if "batcher_answered" in name}) == 2)
        assert service.post({"inputs": "good"})[0] == 200
        assert all(json.loads(line) for line in service.output().splitlines())


def test_the_error_of_a_start_is_an_object_in_a_log_of_objects(tmp_path: Path) -> None:
    command = [*FUSEDBERT, "serve", str(tmp_path / "nowhere"), "--port", "0", "--log-format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert ended.returncode == 1 and line["level"] == "error" and "nowhere does not exist" in line["message"]


def test_a_warning_is_one_line(artifact: Path) -> None:
    with running_service(artifact, "--long-text", "truncate") as service:
        assert service.post({"inputs": "good " * 200})[0] == 200
        (line,) = (line for line in service.output().splitlines() if "was cut" in line)
        assert line.startswith("fusedbert: warning: text 0 has ") and ".py:" not in service.output()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_works_in_a_browser(server: Service, browser: Any, width: int, scheme: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 760}, color_scheme=scheme)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.address)
    page.wait_for_selector("html[data-done=yes]")
    assert page.locator("#result li").first.inner_text().startswith("POSITIVE")
    page.fill("#text", "An awful waste of <b>time</b>.")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("document.querySelector('#result .name').textContent === 'NEGATIVE'")
    assert page.evaluate("document.documentElement.scrollWidth") == width  # no horizontal scrolling
    assert wrong == [] and all(url.startswith(server.address) for url in asked)
    page.uncheck("#truncate")
    page.fill("#text", "word " * 600)
    page.click("#go")
    page.wait_for_selector("#wrong:not([hidden])")
    assert "602 tokens" in page.inner_text("#wrong") and page.locator("#result li").count() == 0
    page.close()


@pytest.mark.browser
def test_the_page_has_every_model_and_asks_for_the_key(locked: Service, browser: Any) -> None:
    page = browser.new_page()
    page.goto(locked.address)
    page.wait_for_selector("#locked:not([hidden])")
    page.fill("#key", "open-sesame")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelectorAll('#result li').length === 3")
    page.select_option("#which", "names")
    page.wait_for_function("document.getElementById('curl').textContent.includes('/tag')")
    page.wait_for_function("!document.querySelector('#result').textContent.includes('NEUTRAL')")
    assert not page.is_visible("#cutting")  # entities are never of a part of a text
    page.close()


def test_the_page_needs_no_other_server(server: Service) -> None:
    page = server.get("/")
    assert "<textarea" in page and not re.search(r"""(?:src|href)=["'](?!data:)""", page)
