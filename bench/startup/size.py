"""Disk size of packages: of those that a process needs, and of its whole environment.

The environments of other engines also hold converters, which a service that runs the converted model does not need. So the
size that counts is that of the distributions that the process imported something of, and all that these require.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path

OURS = "fusedbert"
_PACKAGES = ("engine", "export", "bench", "models")  # a wheel holds them all
_TOOLS = ("pip", "setuptools", "wheel")
_TOOL_FILES = r"(pip|setuptools|wheel)(-[0-9].*\.dist-info)?|pkg_resources|_distutils_hack|distutils-precedence\.pth"


def environment_size(folders: Iterable[Path] | None = None) -> int:
    """Return the bytes of all packages in folders (default: site-packages), without pip and the like; hard links count once."""
    if folders is None:
        folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return _total(file for entry in entries if not re.fullmatch(_TOOL_FILES, entry.name) for file in _files(entry))


def needed_size(modules: Iterable[str], *, fusedbert: bool) -> int:
    """Return the bytes of the distributions of modules, and of all that these require.

    ``fusedbert`` says whether it is one of the distributions, and not only the benchmark.
    """
    owners = importlib.metadata.packages_distributions()
    without = {OURS, *_TOOLS}
    roots = {_normal(owner) for name in modules for owner in owners.get(name.partition(".")[0], ())} - without
    needed = required({*roots, OURS} if fusedbert else roots) - without
    files = [Path(str(file.locate())) for name in needed for file in importlib.metadata.files(name) or ()]
    if fusedbert:  # an editable install does not list its files
        specs = [importlib.util.find_spec(f"{OURS}.{package}") for package in _PACKAGES]
        folders = [folder for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]
        files += [file for folder in folders for file in _files(Path(folder))]
    return _total(file for file in files if file.suffix != ".pyc")


def required(names: Iterable[str]) -> set[str]:
    """Return installed distributions and all their installed requirements, without extras."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = _normal(left.pop())
        if name in found:
            continue
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform, or another version of Python
        found.add(name)
        left += [match[0] for line in lines if "extra" not in line and (match := re.match(r"[A-Za-z0-9._-]+", line))]
    return found


def _files(path: Path) -> list[Path]:
    """List the files of a folder, or a file itself; links to folders are not followed."""
    if not path.is_dir():
        return [path]
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]


def _total(files: Iterable[Path]) -> int:
    sizes: dict[tuple[int, int], int] = {}
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116  # follows links, and is called for 30,000 files
        except OSError:
            continue
        sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _normal(name: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
