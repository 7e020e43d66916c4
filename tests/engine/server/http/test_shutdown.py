"""SIGTERM ends the server whatever its clients do: with one process and with two, within its own limit."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import CHUNKED, POST, Service, http_post, read, running_service, wait_for

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')
pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')

LONG = ["good film " * 200]
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
HALF = {
    "nothing": [],
    "half of a request line": [b"POST /pre"],
    "half of the headers": [POST],
    "half of a body": [POST + b"content-length: 1000\r\n\r\n{"],
    "half of a chunk": [CHUNKED, b"5\r\n"],
    "half of the trailers": [CHUNKED, b"0\r\na: b\r\n"],
    "a body that was refused": [POST + b"content-length: 9000000\r\n\r\n{"],
    "half of the second request": [HEALTH + b"POST /pre"],
}


def runs(process: int) -> bool:
    """Return whether a process runs; one that has ended stays listed until its parent asks for its status."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def clients(service: Service, times: int = 1) -> Iterator[dict[str, socket.socket]]:
    """Open connections of each kind, and keep them open; of those of the same kind the last one is returned."""
    with contextlib.ExitStack() as stack:
        found: dict[str, socket.socket] = {}
        for name, parts in list(HALF.items()) * times:
            found[name] = stack.enter_context(service.connect(*parts))
        found["an answer that is not read"] = stack.enter_context(service.connect_without_reading())
        yield found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_ends_whatever_its_clients_do(artifact: Path, workers: int, number: int) -> None:
    options = ("--workers", str(workers), "--drain", "0.5", "--read-timeout", "600")
    with running_service(artifact, *options) as service, clients(service, times=4) as open_ones:
        kept = service.connect(HEALTH)
        assert kept.recv(1000).startswith(b"HTTP/1.1 200 ")
        processes = service.processes()
        service.stop(number)  # within 60 seconds, or the test fails
        wait_for(lambda: not any(map(runs, processes)))
        answers = {name: read(each)[9:12] for name, each in open_ones.items()}
        assert answers.pop("a body that was refused") in (b"413", b"")
        assert answers.pop("an answer that is not read") == answers.pop("half of the second request") == b"200"
        assert set(answers.values()) == {b""} and read(kept) == b""


def test_half_sent_requests_do_not_use_up_the_time_that_answers_have(embedded: Path) -> None:
    with running_service(embedded, "--drain", "600", "--read-timeout", "600") as service, clients(service) as open_ones:
        open_ones.pop("an answer that is not read").close()  # it has the time that answers have
        running = service.connect(http_post({"inputs": [LONG] * 32, "truncate": True}))
        wait_for(lambda: service.texts("submitted") >= 32)
        service.stop()
        assert read(running).startswith(b"HTTP/1.1 200 ")


def test_answers_that_take_longer_than_the_end_may_are_503(embedded: Path) -> None:
    with running_service(embedded, "--drain", "0.1") as service:
        body = http_post({"inputs": [LONG] * 32, "truncate": True})
        waiting = [service.connect(body) for _ in range(16)]
        wait_for(lambda: service.texts("submitted") >= 512)
        service.stop()
        assert b"503" in {read(each)[9:12] for each in waiting} <= {b"200", b"503"}


def test_a_second_signal_ends_it_at_once(embedded: Path) -> None:
    with running_service(embedded, "--drain", "600") as service:
        waiting = [service.connect(http_post({"inputs": [LONG] * 32, "truncate": True})) for _ in range(16)]
        wait_for(lambda: service.texts("submitted") >= 512)
        service.process.send_signal(signal.SIGINT)
        wait_for(lambda: not accepts(service.port))
        service.process.send_signal(signal.SIGINT)
        service.process.wait(timeout=60)
        for each in waiting:
            each.close()


def test_two_signals_at_once_leave_no_traceback(artifact: Path) -> None:
    with running_service(artifact) as service:
        service.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        service.stop(signal.SIGINT)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True
