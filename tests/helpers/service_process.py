"""`fusedbert serve`, run as a process."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from commands import FUSEDBERT

POST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


def http_post(body: Any) -> bytes:
    """Return a whole request to /predict."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return POST + b"content-length: %d\r\n\r\n" % len(data) + data


def read(connection: socket.socket) -> bytes:
    """Read until the server closes the connection; a reset, after what was read, counts as that."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def trickle(connection: socket.socket, rest: bytes) -> bytes:
    """Send the same bytes again and again until the server closes the connection; return what it has answered."""
    answer, part = b"", b"?"
    connection.settimeout(0.05)
    with connection, contextlib.suppress(ConnectionError):  # it was closed while some of this was on its way
        for _ in range(1200):
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
    """Wait until it holds."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not happened within 60 seconds")


@dataclasses.dataclass(kw_only=True)
class Service:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    log: Any  # an open file

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, body: Any, path: str = "/predict", *, key: str | None = None) -> tuple[int, Any]:
        """Send a body; return the status and the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read().decode()

    def metrics(self) -> dict[str, float]:
        """Read the text format strictly: each line a comment or a sample, each name once."""
        samples: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                continue
            found = re.fullmatch(r'([a-z_]+(?:\{[a-z0-9_]+="[^"]*"(?:,[a-z0-9_]+="[^"]*")*\})?) (\S+)', line)
            assert found is not None and found[1] not in samples, line
            samples[found[1]] = float(found[2])
        return samples

    def texts(self, what: str) -> int:
        """Return a count of the queues of all models, such as ``cancelled`` or ``waiting``."""
        name = f"fusedbert_batcher_{what}" + ("" if what in ("waiting", "running") else "_total")
        found = [value for sample, value in self.metrics().items() if sample.partition("{")[0] == name]
        assert found, f"found no metric {name}"
        return int(sum(found))

    def processes(self) -> list[int]:
        """Return the ids of the process and of those that it has started."""
        found = [self.process.pid]
        for parent in found:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def status(self, name: str) -> int:
        """Return a number of the processes, as Linux counts it: ``VmRSS`` and ``VmHWM`` in KiB, ``Threads``."""
        total = 0
        for process in self.processes():
            found = re.search(rf"^{name}:\s*(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
            assert found is not None
            total += int(found[1])
        return total

    def connect(self, *parts: bytes) -> socket.socket:
        """Open a connection and send bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        for part in parts:
            connection.sendall(part)
        return connection

    def connect_without_reading(self) -> socket.socket:
        """Open a connection and ask for 14 MB, more than the system keeps for a client that does not read them."""
        body = json.dumps({"query": "a", "documents": ["b " * 45_000] * 20}).encode()
        head = POST.replace(b"/predict", b"/v1/rerank") + b"content-length: %d\r\n\r\n" % len(body)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.port))
        connection.settimeout(2)
        with contextlib.suppress(TimeoutError, ConnectionError):  # the server has stopped to read, or closed it
            connection.sendall((head + body) * 8)
            raise AssertionError("all was read, though no answer was")
        connection.settimeout(60)
        return connection

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal, at which it must end in order."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0
        assert "Traceback" not in self.output(), self.output()[-6000:]

    def output(self) -> str:
        """Return what it has printed."""
        self.log.seek(0)
        return str(self.log.read().decode())


@contextlib.contextmanager
def running_service(*arguments: str | Path, env: Mapping[str, str] = {}) -> Iterator[Service]:
    """Start the server, and stop it at the end unless it was stopped; ``arguments`` are those of the command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen(
            [*FUSEDBERT, "serve", *map(str, arguments), "--port", str(port)],
            env={**os.environ, "FUSEDBERT_CACHE": cache, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        service = Service(port=port, process=process, log=log)
        try:
            _wait(service)
            yield service
            if process.poll() is None:
                service.stop()
        finally:
            _kill(service)
            process.wait()


def _kill(service: Service) -> None:
    if service.process.poll() is None:
        for process in service.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _wait(service: Service) -> None:
    for _ in range(600):
        assert service.process.poll() is None, f"the service did not start: {service.output()}"
        try:
            service.get("/health")
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the service does not answer: {service.output()}")
