"""Installed distributions and their versions.

``importlib.metadata`` takes a tenth of the time to a first answer to import, so ``installed`` reads the names of the
``.dist-info`` folders on the path.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Sequence

_DIST_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info")


def installed(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (name, version) of distributions on the path; ``names`` in lower case with hyphens."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                match = _DIST_INFO.fullmatch(entry.name)
                if match and (name := match["name"].lower().replace("_", "-")) in names:
                    found.setdefault(name, match["version"])  # the first one is imported
    return tuple((name, found[name]) for name in names if name in found)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed ones' versions by metadata. Slow at its first call."""
    import importlib.metadata

    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def version() -> str:
    """Return fusedbert's version, or ``unknown`` if it is not installed."""
    # Eggs, for example, have no .dist-info folder.
    return dict(installed(("fusedbert",)) or versions(("fusedbert",)).items()).get("fusedbert", "unknown")
