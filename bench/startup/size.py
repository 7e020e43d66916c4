"""How much disk the packages take: those that a process needs, and all of its environment.

The environments of other engines hold converters too, which a service that runs the converted model does without, and the
environment that a benchmark runs in holds whatever else its user works with. So what counts is what pip would bring for
the distributions that the process has imported something of: they, and all that they require.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

TOOLS = frozenset({"pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"})
OURS = "fusedbert"
_PACKAGES = ("engine", "export", "bench", "models")  # a wheel brings them all


def environment_size(folders: Iterable[Path] | None = None) -> int:
    """Return the bytes of all installed packages, without pip and setuptools; hard links count once.

    Args:
        folders: Where to look; None for the site-packages of this interpreter.
    """
    if folders is None:
        folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    files = (file for folder in folders for entry in _entries(folder) if not _tool(entry.name) for file in _walk(entry))
    return _total(files)


def needed_size(modules: Iterable[str], *, ours: bool) -> int:
    """Return the bytes of the distributions behind some modules, and of all that these require.

    Args:
        modules: Names, as in ``sys.modules``.
        ours: Whether fusedbert itself is one of them, and not only what measures.
    """
    owners = importlib.metadata.packages_distributions()
    found = {_normal(owner) for name in modules for owner in owners.get(name.partition(".")[0], ())}
    found -= {OURS, *map(_normal, TOOLS)}
    needed = required({*found, OURS} if ours else found) - {OURS, *map(_normal, TOOLS)}
    files = [file for name in needed for file in _files(name)]
    if ours:
        files += [file for package in _PACKAGES for file in _package(f"{OURS}.{package}")]
    return _total(files)


def required(names: Iterable[str]) -> set[str]:
    """Return distributions and all that they require where they are installed; extras are left out."""
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = _normal(ahead.pop())
        if name in found:
            continue
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform, or another version of Python
        found.add(name)
        ahead += [match[0] for line in lines if "extra" not in line and (match := re.match(r"[A-Za-z0-9._-]+", line))]
    return found


def _files(name: str) -> Iterator[Path]:
    """Yield the files of a distribution."""
    for file in importlib.metadata.files(name) or ():
        path = Path(str(file.locate()))
        if path.suffix != ".pyc":
            yield path


def _package(name: str) -> Iterator[Path]:
    """Yield the files of a package wherever it lies, which an editable install does not list."""
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from (file for file in _walk(Path(folder)) if file.suffix != ".pyc")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _walk(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for entry in _entries(path):
            yield from _walk(entry)
    else:
        yield path


def _tool(name: str) -> bool:
    return name in TOOLS or re.match(r"(pip|setuptools|wheel)-[0-9].*\.dist-info$", name) is not None


def _total(files: Iterable[Path]) -> int:
    seen: set[tuple[int, int]] = set()
    total = 0
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116  # follows links, and is called for 30,000 files
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def _normal(name: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
