"""The servers that ``bench load --http`` drives. Each runs in its own environment, as a child of the engine's process.

The best settings that were found for each, on two cores: bench/NOTES.md.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fusedbert.engine.errors import FusedBertError, OptionError

from ...engines.base import Engine, EngineSpec, Job
from ...engines.batches import Batch, Logits
from ...engines.environments import OURS
from ...engines.optimum import quantize
from ...engines.registry import make_spec, registered, spec_of
from ...run.worker import end_with_parent

FACTORY = "fusedbert.bench.load.http.servers:make_server"
START_SECONDS = 240.0
LAST_WORDS = 4000  # bytes of a server's log that are searched for the reason why it ended
_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}

SERVERS: tuple[EngineSpec, ...] = (  # fusedbert first
    make_spec("fusedbert-fp32", "fusedbert serve fp32", "FusedBertServer", environment=OURS),
    make_spec("fusedbert-int8", "fusedbert serve int8", "FusedBertServer", environment=OURS),
    make_spec("fusedbert-bf16", "fusedbert serve bf16", "FusedBertServer", environment=OURS),
    make_spec("infinity-torch", "infinity torch fp32", "InfinityServer"),
    make_spec("infinity-torch-bf16", "infinity torch bf16", "InfinityServer"),
    make_spec("infinity-optimum", "infinity optimum fp32", "InfinityServer"),
    make_spec("infinity-optimum-int8", "infinity optimum int8", "InfinityServer"),
    make_spec("pipeline-server", "FastAPI + pipeline fp32", "PipelineServer", environment="transformers"),
    make_spec("pipeline-server-bf16", "FastAPI + pipeline bf16", "PipelineServer", environment="transformers"),
)


class ServedEngine(Engine):
    """A model behind HTTP: ``load`` starts its server in a separate process, and waits until it answers."""

    protocol = ""  # of PROTOCOLS
    shown = ""  # its program in documents
    _process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def program(self) -> list[str]:
        """Return the command that starts the server, without its arguments."""

    @abc.abstractmethod
    def arguments(self, model: str, port: str) -> list[str]:
        """Return the arguments of the command."""

    def variables(self) -> dict[str, str]:
        """Return further variables of the server's process."""
        return {}

    def load(self) -> None:
        """Start the server.

        Raises:
            FusedBertError: It ended, or did not answer in time; the message has the last line that it wrote.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._model = probe.getsockname()[1]
        log = tempfile.TemporaryFile()  # noqa: SIM115  # the server writes into it as long as it runs
        env, work = {**os.environ, **self.variables()}, self.job.work
        work.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [*self.program(), *self.arguments(str(self.folder), str(self._model))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd=work,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        until = time.monotonic() + START_SECONDS
        while not _answers(self._model):
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise FusedBertError(f"the server of {self.name} did not start: {_last_line(log)}")
            time.sleep(0.1)

    def logits(self, batch: Batch) -> Logits:
        """Raise: a server takes texts."""
        raise OptionError(f"{self.name} is a server, which takes texts, not token ids")

    def describe(self) -> Mapping[str, Any]:
        """Add where the server is, and the command that started it."""
        assert self._process is not None
        how = " ".join([self.shown, *self.arguments("MODEL", "PORT")])
        return {
            **super().describe(),
            "port": self._open(),
            "pid": self._process.pid,
            "protocol": self.protocol,
            "served_by": how,
        }

    def close(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        super().close()


class FusedBertServer(ServedEngine):
    """``fusedbert serve`` with its defaults."""

    packages = ("fusedbert", "onnxruntime", "tokenizers", "fastapi", "uvicorn", "uvloop", "httptools")
    protocol, shown = "tei", "fusedbert serve"

    @functools.cached_property
    def folder(self) -> Path:
        """The artifact."""
        return self.job.artifact

    def program(self) -> list[str]:
        """Return the command, in this interpreter."""
        return [sys.executable, "-P", "-c", "from fusedbert.engine.cli import main; main()", "serve"]

    def arguments(self, model: str, port: str) -> list[str]:
        """Return the model, its precision, and that long texts are cut, as others do."""
        return [model, "--precision", self.spec.precision, "--long-text", "truncate", "--port", port]


class InfinityServer(ServedEngine):
    """infinity with its torch engine, on the checkpoint, or with its optimum engine, on optimum's ONNX export of it."""

    packages = ("infinity-emb", "torch", "transformers", "optimum", "onnxruntime", "fastapi", "uvicorn", "uvloop")
    protocol, shown = "infinity", "infinity_emb v2"

    @functools.cached_property
    def folder(self) -> Path:
        """The checkpoint, or its export; infinity takes a file whose name says quantized before others."""
        if "torch" in self.name:
            return self.checkpoint
        plain = self.converted("infinity-export", self._export)
        return (
            plain if self.spec.precision == "fp32" else self.converted("infinity-int8", lambda folder: _quantize(plain, folder))
        )

    def program(self) -> list[str]:
        """Return infinity's command, of this environment."""
        return [str(Path(sys.executable).with_name("infinity_emb")), "v2"]

    def arguments(self, model: str, port: str) -> list[str]:
        """Return the model and the engine. infinity's warm-up fails for an ONNX graph, whose texts it does not cut."""
        common = ["--model-id", model, "--served-model-name", "model", "--device", "cpu", "--host", "127.0.0.1", "--port", port]
        if "torch" in self.name:
            return [*common, "--engine", "torch", "--dtype", _DTYPES[self.spec.precision]]
        return [*common, "--engine", "optimum", "--no-model-warmup"]

    def variables(self) -> dict[str, str]:
        """Keep its cache with the conversions, and its statistics here."""
        return {"INFINITY_HOME": str(self.job.work), "DO_NOT_TRACK": "1", "INFINITY_LOG_LEVEL": "warning"}

    def _export(self, folder: Path) -> None:
        import torch
        from optimum.exporters.onnx import main_export

        # This optimum means torch's older exporter, which torch takes by now only where it is asked for.
        torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
        model = {"task": "text-classification", "library_name": "transformers", "torch_dtype": "fp32"}
        main_export(str(self.checkpoint), folder, **model, local_files_only=True, do_validation=False)


class PipelineServer(ServedEngine):
    """transformers' pipeline behind FastAPI."""

    packages = ("transformers", "torch", "tokenizers", "fastapi", "uvicorn", "uvloop", "httptools")
    protocol, shown = "pipeline", "pipeline_server.py"

    def program(self) -> list[str]:
        """Return the command, in this interpreter."""
        return [sys.executable, "-P", "-m", "fusedbert.bench.load.http.pipeline_server"]

    def arguments(self, model: str, port: str) -> list[str]:
        """Return its four arguments."""
        return [model, port, _DTYPES[self.spec.precision], str(self.job.threads)]


def make_server(name: str, job: Job) -> Engine:
    """Make a server; nothing is converted or started yet."""
    spec = spec_of(registered(name), SERVERS)
    made: Engine = globals()[spec.implementation](spec, job)
    return made


def _quantize(plain: Path, folder: Path) -> None:
    for name in _FILES:
        if (plain / name).is_file():
            shutil.copy(plain / name, folder)
    quantize(plain, folder)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _last_line(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote nothing"
