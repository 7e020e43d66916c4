"""Virtual environments for engines whose requirements exclude each other: one each, built on demand, and kept.

An environment lies in the cache, at ``bench/environments/NAME-HASH``, with the hash of its pinned requirements, so that other
requirements make another environment. ``fusedbert bench setup`` builds it. fusedbert is not installed into it; a process in it
finds our packages by ``links``, so that what is measured is always what is installed here.

``FUSEDBERT_BENCH`` moves the folder. ``FUSEDBERT_BENCH_OPENVINO`` and so on name an existing interpreter instead, for
machines where nothing can be installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

from fusedbert.engine.errors import OptionError, StorageError
from fusedbert.engine.hardware.storage import cache_root, locked

VARIABLE = "FUSEDBERT_BENCH"
OURS = "ours"  # the interpreter that runs now
ENVIRONMENTS = ("transformers", "optimum", "openvino", "ctranslate2", "crossencoder", "infinity")  # the meaning of `all`
CUDA_ENVIRONMENTS = ("optimum-cuda",)  # useless without a GPU, so built only by name
_MARKER = ".made"
Progress = Callable[[str], None]


def bench_folder() -> Path:
    """Return the folder of environments and conversions: ``FUSEDBERT_BENCH``, else ``bench`` in the cache. It may not exist.

    Raises:
        StorageError: The home folder is unknown.
    """
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else cache_root() / "bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment, built or not."""

    requirements: tuple[str, ...]  # package==version
    folder: Path  # its place once it is built

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def complete(self) -> bool:
        """True if its build was finished and its interpreter still exists."""
        return (self.folder / _MARKER).is_file() and self.python.exists()


def environment_of(name: str) -> Environment:
    """Return an environment's requirements and place.

    Raises:
        OptionError: The name is unknown.
    """
    known = (*ENVIRONMENTS, *CUDA_ENVIRONMENTS)
    if name not in known:
        raise OptionError(f"unknown environment {name!r}: give one of {', '.join(known)}, or all")
    lines = (line.split("#")[0].strip() for line in requirements_file(name).read_text(encoding="utf-8").splitlines())
    requirements = tuple(filter(None, lines))
    about = "\n".join((*requirements, f"python {sys.version_info.major}.{sys.version_info.minor}"))
    digest = hashlib.sha256(about.encode()).hexdigest()[:12]
    return Environment(requirements=requirements, folder=bench_folder() / "environments" / f"{name}-{digest}")


def requirements_file(name: str) -> Path:
    """Return the file of an environment's requirements."""
    return Path(__file__).parent / "requirements" / f"{name}.txt"


def python_of(name: str) -> Path | None:
    """Return an environment's interpreter, or None if it is not built; ``ours`` is the interpreter that runs now.

    Raises:
        OptionError: The name is unknown, or the variable that names its interpreter names no file.
    """
    if name == OURS:
        return Path(sys.executable)
    environment = environment_of(name)
    variable = f"{VARIABLE}_{name.upper().replace('-', '_')}"
    if named := os.environ.get(variable):
        python = Path(named).expanduser()
        if not python.is_file():
            raise OptionError(f"{variable} is {named!r}, which is not a file: give the path of a Python interpreter")
        return python
    return environment.python if environment.complete else None


@contextlib.contextmanager
def links() -> Iterator[Path]:
    """Make a temporary folder whose ``fusedbert`` links to the packages installed here, for ``PYTHONPATH``."""
    with tempfile.TemporaryDirectory(prefix="fusedbert-bench-") as folder:
        namespace = Path(folder) / "fusedbert"
        namespace.mkdir()
        for stage in ("engine", "export", "bench", "models"):
            (namespace / stage).symlink_to(stage_folder(stage), True)
        yield Path(folder)


def stage_folder(stage: str) -> Path:
    """Return the folder where a stage is installed; the stage itself is not imported."""
    spec = importlib.util.find_spec(f"fusedbert.{stage}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).absolute().parent


def variables(folder: Path, *, threads: int) -> dict[str, str]:
    """Return the environment variables of an engine's process: those of this one, with settings that make runs alike.

    ``folder`` is the one of ``links``; ``threads`` holds for every library that reads its number from a variable.
    """
    libraries = ("OMP", "MKL", "OPENBLAS", "RAYON")
    hub = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
    return {
        **_kept_variables("PYTHONSTARTUP"),
        "PYTHONPATH": str(folder),
        **{f"{library}_NUM_THREADS": str(threads) for library in libraries},
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        **dict.fromkeys(("PYTHONNOUSERSITE", *hub), "1"),
    }


def _kept_variables(*others: str) -> dict[str, str]:
    """Return this process's variables, without ``others`` and those that belong to its Python."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", *others)
    return {name: value for name, value in os.environ.items() if name not in dropped}


def set_up(name: str, progress: Progress = lambda _line: None, *, again: bool = False) -> Path:
    """Build an environment unless it is complete, or ``again``; return its interpreter.

    ``progress`` is called with a line before each step.

    Raises:
        OptionError: The name is unknown.
        StorageError: It cannot be built; the message quotes the last line of pip.
    """
    environment = environment_of(name)
    with locked(bench_folder() / "locks" / f"{environment.folder.name}.lock"):
        if environment.complete and not again:
            progress(f"{name}: already there, {environment.folder}")
            return environment.python
        shutil.rmtree(environment.folder, ignore_errors=True)
        progress(f"{name}: making {environment.folder} with Python {sys.version.split()[0]}")
        _step(name, [sys.executable, "-m", "venv", str(environment.folder)])
        pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        # torch in a separate call: a CPU build that is configured for pip is found only for that line.
        torch = [line for line in environment.requirements if line.startswith("torch==")]
        rest = [line for line in environment.requirements if line not in torch]
        for lines in filter(None, (torch, rest)):
            progress(f"{name}: installing {', '.join(lines[:3])}{f' and {len(lines) - 3} more' if len(lines) > 3 else ''}")
            _step(name, [*pip, "install", "--quiet", *lines])
        _step(name, [*pip, "check"])
        (environment.folder / _MARKER).touch()  # last
        progress(f"{name}: done, {len(environment.requirements)} packages pinned")
    return environment.python


def _step(name: str, command: list[str]) -> None:
    done = subprocess.run(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True, env=_kept_variables(), check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line] or lines or [f"exit status {done.returncode}"]
        raise StorageError(f"the environment {name} cannot be built: {errors[-1].strip()}")
