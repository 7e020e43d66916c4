"""Environments for engines whose requirements exclude each other: a virtual environment each, built on demand, and kept.

An environment lies in the cache, at ``bench/NAME-HASH``, where the hash is that of its pinned requirements: after these
change it is another one. ``fusedbert bench setup`` makes it. None of our packages is installed into it; a process in it
finds them by ``links``, a temporary folder of symbolic links, so that what is measured is always what is installed here.

``FUSEDBERT_BENCH`` moves the folder. ``FUSEDBERT_BENCH_OPENVINO`` and the like name an interpreter that is there already,
for machines where nothing can be installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.resources
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fusedbert.engine.errors import OptionError, StorageError
from fusedbert.engine.load.cache import cache_root, locked

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VARIABLE = "FUSEDBERT_BENCH"
OURS = "ours"  # the interpreter that runs now
PEERS = ("transformers", "optimum", "openvino", "ctranslate2")  # what `all` stands for
CUDA_PEERS = ("optimum-cuda",)  # of no use without a GPU, so made where they are named
_STAGES = ("engine", "export", "bench", "models")
_MARKER = ".made"
Progress = Callable[[str], None]


def bench_folder() -> Path:
    """Return the folder of environments and conversions: ``FUSEDBERT_BENCH``, else ``bench`` in the cache. Not made yet.

    Raises:
        StorageError: There is no home folder to put it in.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    return cache_root() / "bench"


def conversions_folder() -> Path:
    """Return the folder for what contenders convert checkpoints into. Not made yet."""
    return bench_folder() / "converted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment, built or not.

    Attributes:
        name: One of ``PEERS`` or ``CUDA_PEERS``.
        requirements: Its lines, ``package==version`` each.
        folder: Where it lies once it is built.
    """

    name: str
    requirements: tuple[str, ...]
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def complete(self) -> bool:
        """Whether it was built to the end, and its interpreter is still there."""
        return (self.folder / _MARKER).is_file() and self.python.exists()


def environment_of(name: str) -> Environment:
    """Return an environment's requirements and place.

    Raises:
        OptionError: There is none of that name.
    """
    if name not in (*PEERS, *CUDA_PEERS):
        raise OptionError(f"there is no environment {name!r}: give one of {', '.join((*PEERS, *CUDA_PEERS))}, or all")
    lines = (line.split("#")[0].strip() for line in requirements_file(name).read_text(encoding="utf-8").splitlines())
    requirements = tuple(line for line in lines if line)
    about = "\n".join((*requirements, f"python {sys.version_info.major}.{sys.version_info.minor}"))
    digest = hashlib.sha256(about.encode()).hexdigest()[:12]
    return Environment(name=name, requirements=requirements, folder=bench_folder() / "environments" / f"{name}-{digest}")


def requirements_file(name: str) -> Traversable:
    """Return the file of an environment's requirements."""
    return importlib.resources.files("fusedbert.bench.engines") / "requirements" / f"{name}.txt"


def python_of(name: str) -> Path | None:
    """Return an environment's interpreter, or None where it is not built.

    Args:
        name: One of ``PEERS`` or ``CUDA_PEERS``, or ``ours`` for the interpreter that runs now.

    Raises:
        OptionError: There is no such environment, or the variable that names its interpreter names none.
    """
    if name == OURS:
        return Path(sys.executable)
    environment = environment_of(name)
    variable = f"{VARIABLE}_{name.upper().replace('-', '_')}"
    if named := os.environ.get(variable):
        python = Path(named).expanduser()
        if not python.is_file():
            raise OptionError(f"{variable} is {named!r}, which is no file: give the path of a Python interpreter")
        return python
    return environment.python if environment.complete else None


@contextlib.contextmanager
def links() -> Iterator[Path]:
    """Make a temporary folder whose ``fusedbert`` is the packages installed here; for ``PYTHONPATH`` in an environment."""
    with tempfile.TemporaryDirectory(prefix="fusedbert-bench-") as folder:
        namespace = Path(folder) / "fusedbert"
        namespace.mkdir()
        for stage in _STAGES:
            found = importlib.util.find_spec(f"fusedbert.{stage}")
            if found is not None and found.submodule_search_locations:
                (namespace / stage).symlink_to(Path(next(iter(found.submodule_search_locations))).absolute(), True)
        yield Path(folder)


def variables(folder: Path, *, threads: int) -> dict[str, str]:
    """Return the environment variables of a process in an environment: those of this process, and what makes runs alike.

    Args:
        folder: What ``links`` made.
        threads: Threads of every library that reads its number from a variable.
    """
    count = str(threads)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")}
    return {
        **kept,
        "PYTHONPATH": str(folder),
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def set_up(name: str, tell: Progress = lambda _line: None, *, again: bool = False) -> Path:
    """Build an environment where it is not there; one that a build left half done is removed first.

    Args:
        name: One of ``PEERS`` or ``CUDA_PEERS``.
        tell: Called with a line before each step.
        again: Build it anew even where it is there.

    Returns:
        Its interpreter.

    Raises:
        OptionError: There is no environment of that name.
        StorageError: It cannot be built; the message quotes the last line that pip wrote.
    """
    environment = environment_of(name)
    with locked(bench_folder() / "locks" / f"{environment.folder.name}.lock"):
        if environment.complete and not again:
            tell(f"{name}: already there, {environment.folder}")
            return environment.python
        if environment.folder.exists():
            shutil.rmtree(environment.folder, ignore_errors=True)
        _build(environment, tell)
    return environment.python


def _build(environment: Environment, tell: Progress) -> None:
    """Make the environment; its marker is written last."""
    count = len(environment.requirements)
    tell(f"{environment.name}: making {environment.folder} with Python {sys.version.split()[0]}")
    _step(environment, [sys.executable, "-m", "venv", str(environment.folder)])
    # torch by its own line: where a CPU build is configured for pip, that is the one which takes it.
    torch = [line for line in environment.requirements if re.match(r"torch\s*==", line)]
    rest = [line for line in environment.requirements if line not in torch]
    for lines in filter(None, (torch, rest)):
        tell(f"{environment.name}: installing {', '.join(lines[:3])}{f' and {len(lines) - 3} more' if len(lines) > 3 else ''}")
        _step(environment, [*_pip(environment), "install", "--quiet", *lines])
    _step(environment, [*_pip(environment), "check"])
    (environment.folder / _MARKER).write_text("\n".join(environment.requirements) + "\n", encoding="utf-8")
    tell(f"{environment.name}: done, {count} packages pinned")


def _pip(environment: Environment) -> list[str]:
    return [str(environment.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _step(environment: Environment, command: list[str]) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kept, check=False
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line] or lines or [f"exit status {done.returncode}"]
        raise StorageError(f"the environment {environment.name} cannot be built: {errors[-1].strip()}")
