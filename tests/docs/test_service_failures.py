"""examples/fastapi_service.py with clients that send what they should not, are slow, leave, or are many."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_load import GOOD, LEAVING, SLOW, drive
from service_process import Service, running_service

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[service]"')
pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[service]"')

POST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
PATIENT = "fastapi_service.READ_SECONDS = fastapi_connection.HEADER_SECONDS = fastapi_connection.BODY_SECONDS = 600"
HURRIED = "fastapi_service.READ_SECONDS = fastapi_connection.HEADER_SECONDS = 0.5; fastapi_connection.BODY_SECONDS = 1"
LONG = ["good film " * 200]  # a text that takes long
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def request(body: Any) -> bytes:
    data = json.dumps(body).encode()
    return POST + b"content-length: %d\r\n\r\n" % len(data) + data


def read(connection: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    received = b""
    with connection:
        while part := connection.recv(65536):
            received += part
    return received


def trickle(connection: socket.socket, rest: bytes) -> bytes:
    """Send the same bytes again and again until the service closes the connection; return what it has answered."""
    answer, part = b"", b"?"
    connection.settimeout(0.05)
    with contextlib.suppress(ConnectionError):  # it was closed while some of this was on its way
        for _ in range(1000):
            try:
                while part:
                    part = connection.recv(65536)
                    answer += part
                return answer
            except TimeoutError:
                connection.sendall(rest)
        raise AssertionError("the connection was not closed")
    return answer


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not happened within 30 seconds")


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[Service]:
    """A service that waits half a second for a request."""
    with running_service(artifact, constants=HURRIED) as service:
        yield service


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"inputs": "a", "truncation_directoin": "Left"}, 422, "'truncation_directoin' is not a field"),
        ({"inputs": "a", "parameters": {"top_k": 1}}, 422, "'parameters' is not a field"),
        (b'{"inputs": "a", "\\ud800": 1}', 422, "'\\ud800' is not a field"),
        ({"inputs": "a", "x" * 100_000: 1}, 422, "is not a field"),
        ({"inputs": "a", **dict.fromkeys(map(str, range(100_000)))}, 422, "'0' is not a field"),
        ({"inputs": {"text": "a"}}, 422, "inputs: give a text"),
        ({"inputs": [["a"], {"text": "a"}]}, 422, "inputs: give a text"),
        ({"inputs": [[3] * 300_000]}, 422, "inputs: give a text"),
        ({"inputs": [["a"]] * 10_000}, 413, "batch size 10000"),
        ({"inputs": "a", "truncation_direction": "up"}, 422, "truncation_direction: "),
        ({"inputs": "a", "truncate": "no"}, 422, "truncate: "),
        (b'{"inputs": "a", "inputs": "b"}', 422, "twice"),
        (b'{"inputs": NaN}', 422, "inputs: give a text"),
        (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422, "nested too deeply"),
        (b'{"inputs": ' + b"9" * 100_000 + b"}", 422, "not JSON"),
        (b'{"inputs": "\xff"}', 422, "not JSON"),
        (b'{"inputs": "\xed\xa0\x80"}', 422, "surrogate"),
        (b'{"inputs": "a\x00"}', 422, "not JSON"),
        (b"[]", 422, "not an object"),
        (b"", 422, "not JSON"),
    ],
)
def test_what_the_service_does_not_know_is_refused_in_one_line(server: Service, body: Any, status: int, named: str) -> None:
    found, answer = server.post(body)
    assert found == status and named in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 300


@pytest.mark.parametrize(
    "head", [b"content-length: -1", b"content-length: x", b"transfer-encoding: chunked\r\ncontent-length: 2"]
)
def test_a_length_that_cannot_be_is_refused(server: Service, head: bytes) -> None:
    assert read(server.connect(POST, head, b"\r\n\r\n{}")).startswith(b"HTTP/1.1 400 ")


def test_another_content_type_is_refused(server: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 15\r\n\r\n"
    assert read(server.connect(head, b'{"inputs": "a"}')).startswith(b"HTTP/1.1 415 ")


@pytest.mark.parametrize("form", ["{}", "{} "])
def test_either_end_of_a_text_may_be_cut(server: Service, form: str) -> None:
    text = form.format("good " * 600 + "awful " * 600)

    def scores(inputs: str, **fields: Any) -> dict[str, Any]:
        status, answer = server.post({"inputs": inputs, "truncate": True, **fields})
        assert status == 200
        return {each["label"]: pytest.approx(each["score"], abs=1e-4) for each in answer}

    start, end = scores("good " * 510), scores("awful " * 510)
    assert start != end
    for left, right in (("Left", "Right"), ("left", "right")):
        assert scores(text, truncation_direction=left) == end and scores(text, truncation_direction=right) == start
    assert scores(text) == scores(text, truncation_direction=None, truncate=True) == start


@linux
def test_a_body_without_a_length_is_refused_at_the_limit(server: Service) -> None:
    before = server.status("VmHWM")
    with server.connect(CHUNKED, *[b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 640, b"0\r\n\r\n") as connection:  # 42 MB
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert server.status("VmHWM") - before < 20_000


@linux
def test_the_bodies_of_all_clients_are_limited_together(artifact: Path) -> None:
    with running_service(artifact, constants=f"{PATIENT}; fastapi_service.MAX_HELD = 5_000_000") as service:
        part = POST + b"content-length: 1900000\r\n\r\n" + b" " * 1_800_000
        clients = [service.connect(part) for _ in range(3)]
        (refused, *_), _, _ = select.select(clients, [], [], 60)
        answer = http.client.HTTPResponse(refused)
        answer.begin()
        assert answer.status == 429 and b"5000000 bytes wait already" in answer.read()
        assert service.post({"inputs": "a"})[0] == 200  # a small one


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"POST /pre", b"d"),
        (POST, b"a: b\r\n"),
        (POST + b"content-length: 1000\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED + b"0\r\n", b"a: b\r\n"),
        (POST + b"content-length: 1000\r\n\r\n", b""),
    ],
)
def test_a_slow_request_is_answered_with_408_and_closed(server: Service, start: bytes, rest: bytes) -> None:
    answer = trickle(server.connect(start), rest)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer


def test_endless_headers_are_refused(server: Service) -> None:
    connection = server.connect(b"GET /health HTTP/1.1\r\n", b"a: " + b"x" * 70_000)
    assert read(connection).startswith(b"HTTP/1.1 431 ")


def test_what_a_refused_body_still_sends_does_not_keep_the_connection_open(server: Service) -> None:
    assert b" 413 " in trickle(server.connect(POST + b"content-length: 9000000\r\n\r\n"), b" ")


def test_texts_whose_client_has_left_are_not_run(server: Service) -> None:
    submitted, answered, cancelled = (server.texts(name) for name in ("submitted", "answered", "cancelled"))
    for _ in range(40):
        server.connect(request({"inputs": [LONG] * 32, "truncate": True})).close()
    status, _ = server.post({"inputs": "good"})
    wait_for(lambda: server.texts("waiting") == server.texts("running") == 0)
    submitted = server.texts("submitted") - submitted
    answered, cancelled = server.texts("answered") - answered, server.texts("cancelled") - cancelled
    assert status == 200 and submitted == answered + cancelled and cancelled > submitted / 2
    assert server.metrics()['http_requests_total{path="/predict",status="499"}'] >= 1


def test_the_other_texts_of_a_request_that_fails_are_not_run(server: Service) -> None:
    before = server.texts("cancelled")
    assert server.post(json.dumps({"inputs": [*[LONG] * 31, ["\ud800"]], "truncate": True}).encode())[0] == 422
    wait_for(lambda: server.texts("waiting") == server.texts("running") == 0)
    assert server.texts("cancelled") > before


def test_requests_that_are_half_sent_do_not_hold_up_the_end(artifact: Path) -> None:
    with running_service(artifact, constants=f"{PATIENT}; fastapi_service.CLOSE_SECONDS = 600") as service:
        health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
        half_sent = [
            service.connect(*parts)
            for parts in (
                [],
                [b"POST /pre"],
                [POST + b"content-length: 1000\r\n\r\n{"],
                [CHUNKED, b"5\r\n"],
                [POST + b"content-length: 9000000\r\n\r\n{"],
            )
        ]
        kept = service.connect(health)
        assert kept.recv(1000).startswith(b"HTTP/1.1 200 ")
        running = service.connect(request({"inputs": [LONG] * 32, "truncate": True}))
        wait_for(lambda: service.texts("submitted") == 32)
        service.stop()  # within 60 seconds
        assert read(running).startswith(b"HTTP/1.1 200 ")
        assert [read(each)[9:12] for each in (*half_sent, kept)] == [b"", b"", b"", b"", b"413", b""]


def test_texts_that_take_longer_than_the_end_may_are_answered_with_503(artifact: Path) -> None:
    with running_service(artifact, constants="fastapi_service.CLOSE_SECONDS = 0.1") as service:
        body = request({"inputs": [LONG] * 32, "truncate": True})
        clients = [service.connect(body) for _ in range(16)]
        wait_for(lambda: service.texts("submitted") == 512)
        service.stop()
        assert b"503" in {read(each)[9:12] for each in clients} <= {b"200", b"503"}


def test_special_tokens_of_strangers_are_text(server: Service, artifact: Path) -> None:
    body = {"inputs": "[SEP] " * 600}
    assert "602 tokens" in server.post(body)[1]["error"]
    with running_service(artifact, "--split-special-tokens") as service:
        assert "1802 tokens" in service.post(body)[1]["error"]  # [, sep and ]


@linux
def test_clients_that_leave_and_slow_ones_leave_nothing_behind(artifact: Path) -> None:
    with running_service(artifact) as service:
        asyncio.run(drive(service.port, {GOOD: 100.0, LEAVING: 50.0}, 1.0))
        wait_for(lambda: service.texts("waiting") == service.texts("running") == 0)
        threads, memory, before = service.status("Threads"), service.status("VmRSS"), service.metrics()
        answers = asyncio.run(drive(service.port, {GOOD: 200.0, LEAVING: 60.0, SLOW: 20.0}, 2.0))
        wait_for(lambda: service.texts("waiting") == service.texts("running") == 0)
        assert Counter(each.kind for each in answers)[LEAVING] > 50
        assert {each.status for each in answers if each.kind != LEAVING} <= {200, 429}
        now = service.metrics()
        grown = {name: now[name] - before[name] for name in now if name.startswith("fusedbert_batcher")}
        ends = sum(grown[f"fusedbert_batcher_{name}_total"] for name in ("answered", "failed", "expired", "cancelled"))
        assert grown["fusedbert_batcher_submitted_total"] == ends > 0
        assert service.status("Threads") == threads and service.status("VmRSS") - memory < 30_000
