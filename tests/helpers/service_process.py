"""The service of examples/, run as a process."""

import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclasses.dataclass(kw_only=True)
class Service:
    """A running service."""

    port: int
    process: subprocess.Popen[bytes]
    log: Any  # an open file

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, body: Any) -> tuple[int, Any]:
        """Send a body to /predict; return the status and the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/predict", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
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
        """Return a count of the batcher, such as ``cancelled`` or ``waiting``."""
        name = f"fusedbert_batcher_{what}" + ("" if what in ("waiting", "running") else "_total")
        return int(self.metrics()[name])

    def status(self, name: str) -> int:
        """Return a number of the process, as Linux counts it: ``VmRSS`` and ``VmHWM`` in KiB, ``Threads``."""
        found = re.search(rf"^{name}:\s*(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def connect(self, *parts: bytes) -> socket.socket:
        """Open a connection and send bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        for part in parts:
            connection.sendall(part)
        return connection

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal, at which it must end in order."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0
        assert "Traceback" not in self.output()

    def output(self) -> str:
        """Return what it has printed."""
        self.log.seek(0)
        return str(self.log.read().decode())


@contextlib.contextmanager
def running_service(artifact: Path, *options: str, constants: str = "") -> Iterator[Service]:
    """Start the service, and stop it at the end unless it was stopped.

    ``constants`` are statements that change constants of the modules ``fastapi_service`` and ``fastapi_connection``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(EXAMPLES / "fastapi_service.py")]
    if constants:
        command = ["-c", f"import fastapi_connection, fastapi_service; {constants}; fastapi_service.main()"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command, str(artifact.resolve()), "--port", str(port), *options],
            cwd=EXAMPLES,
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
            process.kill()
            process.wait()


def _wait(service: Service) -> None:
    for _ in range(600):
        assert service.process.poll() is None, f"the service did not start: {service.output()}"
        try:
            service.get("/health")
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the service does not answer: {service.output()}")
