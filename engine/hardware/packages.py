"""Which distributions are installed, and in which version.

``importlib.metadata`` answers the same, and importing it takes a tenth of the time to a first answer; so the names of
the ``.dist-info`` folders on the path are read by hand, and it is asked only where they do not tell.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence

_DIST_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info")


def installed(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (name, version) of those of ``names`` that stand on the path; of two versions the one that imports first.

    Args:
        names: Distribution names, in lower case with hyphens.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                match = _DIST_INFO.fullmatch(entry.name)
                if match and (name := match["name"].lower().replace("_", "-")) in names:
                    found.setdefault(name, match["version"])
    return tuple((name, found[name]) for name in names if name in found)


def version() -> str:
    """Return fusedbert's version, or ``unknown`` where it runs without being installed."""
    for _, found in installed(("fusedbert",)):
        return found
    import importlib.metadata  # eggs and other forms that name no folder so

    try:
        return importlib.metadata.version("fusedbert")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
