"""Clients that are slow, send too much, or leave: each costs a little memory for a while, and no run of the model."""

from __future__ import annotations

import asyncio
import http.client
import select
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_load import GOOD, LEAVING, SLOW, drive
from service_process import CHUNKED, POST, Service, http_post, read, running_service, trickle, wait_for

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')
pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')

LONG = ["good film " * 200]  # a text that takes long, in a model that reads 512 tokens
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def hurried(embedded: Path) -> Iterator[Service]:
    """A server that waits half a second for a request."""
    with running_service(embedded, "--read-timeout", "0.5") as service:
        yield service


@linux
@pytest.mark.parametrize("megabytes", [20, 42])
def test_a_body_without_a_length_is_refused_at_the_limit(hurried: Service, megabytes: int) -> None:
    before = hurried.status("VmHWM")
    start = b'{"truncate": true, "inputs": "'
    parts = [b"%x\r\n%s\r\n" % (len(start), start), *[b"10000\r\n" + b"a" * 65536 + b"\r\n"] * (16 * megabytes)]
    with hurried.connect(CHUNKED) as connection:
        try:
            for part in [*parts, b'2\r\n"}\r\n0\r\n\r\n']:
                connection.sendall(part)
        except ConnectionError:  # it was closed before all was sent
            pass
        else:
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert hurried.status("VmHWM") - before < 20_000


@linux
@pytest.mark.parametrize("start", [b"0\r\n", b"0\r\na: ", b"5;a="])
def test_what_a_chunk_has_other_than_data_is_limited(hurried: Service, start: bytes) -> None:
    before = hurried.status("VmHWM")
    part = b"b" * 65_000 if start.endswith((b" ", b"=")) else b"a: bcd\r\n" * 8_000
    with hurried.connect(CHUNKED + start) as connection, pytest.raises(ConnectionError):
        for _ in range(800):
            connection.sendall(part)
    assert hurried.status("VmHWM") - before < 20_000


@linux
def test_the_bodies_of_all_clients_are_limited_together(embedded: Path) -> None:
    with running_service(embedded, "--read-timeout", "600", "--max-held", "5000000") as service:
        before = service.status("VmHWM")
        part = POST + b"content-length: 1900000\r\n\r\n" + b" " * 1_800_000
        clients = [service.connect(part) for _ in range(3)]
        (refused, *_), _, _ = select.select(clients, [], [], 60)
        answer = http.client.HTTPResponse(refused)
        answer.begin()
        assert answer.status == 429 and b"5000000 bytes wait already" in answer.read()
        assert int(answer.headers["retry-after"]) >= 1
        assert service.post({"inputs": "a"})[0] == 200  # a small one
        clients += [service.connect(part[:65536]) for _ in range(200)]
        assert service.post({"inputs": "a"})[0] == 200
        assert service.status("VmHWM") - before < 60_000
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"POST /pre", b"d"),
        (POST, b"a: b\r\n"),
        (POST + b"content-length: 1000\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED + b"0\r\n", b"a: b\r\n"),
        (POST + b"content-length: 1000\r\n\r\n", b""),
        (http_post({"inputs": "a"}) + b"POST /pre", b"d"),
    ],
)
def test_a_slow_request_is_answered_with_408_and_closed(hurried: Service, start: bytes, rest: bytes) -> None:
    answer = trickle(hurried.connect(start), rest)
    *_, last = answer.split(b"HTTP/1.1 ")
    assert last.startswith(b"408 ") and b"connection: close" in last


def test_a_connection_without_a_request_is_closed(hurried: Service) -> None:
    assert read(hurried.connect()) == b""


def test_what_a_refused_body_still_sends_does_not_keep_the_connection_open(hurried: Service) -> None:
    assert b" 413 " in trickle(hurried.connect(POST + b"content-length: 9000000\r\n\r\n"), b" ")


def test_a_client_that_does_not_read_is_cut_off(hurried: Service) -> None:
    connection = hurried.connect_without_reading()
    wait_for(lambda: hurried.metrics()["http_requests_running"] == 1)  # the one that asks for this
    assert len(read(connection)) < 1_800_000
    assert "Traceback" not in hurried.output()


def test_more_connections_than_the_limit_get_a_503(embedded: Path) -> None:
    with running_service(embedded, "--max-connections", "20", "--read-timeout", "600") as service:
        idle = [service.connect() for _ in range(20)]
        refused = service.connect(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read(refused)[9:12] == b"503"
        for connection in idle:
            connection.close()
        wait_for(lambda: read(service.connect(b"GET /health HTTP/1.0\r\n\r\n"))[9:12] == b"200")


def test_texts_whose_client_has_left_are_not_run(hurried: Service) -> None:
    before = {name: hurried.texts(name) for name in ("submitted", "answered", "cancelled")}
    for _ in range(40):
        hurried.connect(http_post({"inputs": [LONG] * 32, "truncate": True})).close()
    assert hurried.post({"inputs": "good"})[0] == 200
    wait_for(lambda: hurried.texts("waiting") == hurried.texts("running") == 0)
    submitted, answered, cancelled = (hurried.texts(name) - count for name, count in before.items())
    assert submitted == answered + cancelled and cancelled > submitted / 2
    left = [value for name, value in hurried.metrics().items() if 'status="499"' in name]
    assert sum(left) >= 1


@linux
def test_clients_that_leave_and_slow_ones_leave_nothing_behind(embedded: Path) -> None:
    with running_service(embedded) as service:
        asyncio.run(drive(service.port, {GOOD: 100.0, LEAVING: 50.0}, 1.0))
        wait_for(lambda: service.texts("waiting") == service.texts("running") == 0)
        threads, memory, names = (
            service.status("Threads"),
            service.status("VmRSS"),
            ("answered", "failed", "expired", "cancelled"),
        )
        before = {name: service.texts(name) for name in ("submitted", *names)}
        answers = asyncio.run(drive(service.port, {GOOD: 200.0, LEAVING: 60.0, SLOW: 20.0}, 2.0))
        wait_for(lambda: service.texts("waiting") == service.texts("running") == 0)
        assert Counter(each.kind for each in answers)[LEAVING] > 50
        assert {each.status for each in answers if each.kind != LEAVING} <= {200, 429}
        grown = {name: service.texts(name) - count for name, count in before.items()}
        assert grown["submitted"] == sum(grown[name] for name in names) > 0
        assert service.status("Threads") == threads and service.status("VmRSS") - memory < 30_000
