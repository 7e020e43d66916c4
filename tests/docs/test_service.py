"""examples/fastapi_service.py as a server, called over HTTP; examples/threads.py as it stands."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_process import Service, running_service

from fusedbert.engine import Classifier

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[service]"')
pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[service]"')


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[Service]:
    """A running service, which must end in order at SIGINT."""
    with running_service(artifact) as service:
        yield service
        service.stop(signal.SIGINT)


def test_the_service_answers_as_text_embeddings_inference(server: Service, artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1) as clf:
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


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": "word " * 600}, 413, "Validation"),
        ({"inputs": [["a"]] * 33}, 413, "Validation"),
        (b'{"inputs": "\\ud800"}', 422, "Tokenizer"),
        ({"inputs": []}, 422, "Validation"),
        ({"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ({"inputs": 3}, 422, "Validation"),
        (b"{no json", 422, "Validation"),
        ({}, 422, "Validation"),
    ],
)
def test_wrong_requests_are_refused(server: Service, body: Any, status: int, kind: str) -> None:
    found, answer = server.post(body)
    assert (found, answer["error_type"]) == (status, kind) and answer["error"]


def test_a_large_body_is_refused_before_it_is_sent(server: Service) -> None:
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("content-length", "2000001")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and "2000001 bytes" in json.load(answer)["error"]
    connection.close()


def test_a_long_text_may_be_cut(server: Service) -> None:
    assert server.post({"inputs": "word " * 600, "truncate": True})[0] == 200


def test_many_requests_at_once_are_answered(server: Service) -> None:
    texts = [f"{'good ' * (i % 7)}film" for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: server.post({"inputs": text}), texts))
    assert {status for status, _ in found} == {200}
    assert found[3] == found[10] == found[17]  # the same text, whatever ran at the same time


def test_the_service_has_info_metrics_and_a_page(server: Service) -> None:
    info = json.loads(server.get("/info"))
    assert info["max_input_length"] == 512 and info["model_type"]["classifier"]["label2id"] == {"NEGATIVE": 0, "POSITIVE": 1}
    before = server.metrics()
    server.post({"inputs": [["a"], ["b"]]})
    server.post({})
    after = server.metrics()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["fusedbert_batcher_answered_total"] == grown["fusedbert_texts_total"] == 2
    assert grown['http_requests_total{path="/predict",status="200"}'] == 1
    assert grown['http_requests_total{path="/predict",status="422"}'] >= 1
    assert grown["http_predict_duration_seconds_count"] == 2 == grown['http_predict_duration_seconds_bucket{le="+Inf"}']
    page = server.get("/")
    assert "<textarea" in page and not re.search(r"""(?:src|href)=["'](?!data:)""", page)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_service_page_works_in_a_browser(server: Service, browser: Any, width: int, scheme: Any) -> None:
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


def test_the_threads_example_gives_the_same_answers(repository: Path, artifact: Path) -> None:
    command = [sys.executable, "examples/threads.py", str(artifact), "examples/sentences.txt"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "the same answers either way"
