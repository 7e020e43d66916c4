"""An installation without kernels: why there are none, and the command that gets them where they could be had."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import shutil
import sys
from collections.abc import Collection
from typing import Any

_COMPILERS = ("cc", "gcc", "clang")  # those that setup.py looks for
_REINSTALL = "pip install --force-reinstall --no-deps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absence:
    """The reason why the library is missing."""

    reason: str
    curable: bool  # ``way_out`` has the command


def absence(features: Collection[str]) -> Absence:
    """Return why the library is missing on a processor with these features, which are empty if they are not known."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return Absence(reason=f"fusedbert has none for {platform.machine()} processors, nothing is missing", curable=False)
    if sys.platform == "darwin":
        return Absence(reason="fusedbert has none for macOS, nothing is missing", curable=False)
    if features and {"avx512f", "avx_vnni"}.isdisjoint(features):
        return Absence(reason="fusedbert's need AVX-512 or AVX-VNNI, which this CPU lacks", curable=False)
    return Absence(reason="fusedbert's are not installed, see fusedbert doctor", curable=True)


def way_out(version: str) -> str:
    """Return the command that installs fusedbert of this version again, with its kernels. Reads metadata, which is slow."""
    try:
        source = _source(_direct_url())
    except (AttributeError, KeyError, TypeError):  # not of PEP 610's form
        source = None
    if source is None:
        if sys.platform == "win32" or platform.libc_ver()[0] == "glibc":
            return f"{_REINSTALL} --only-binary=fusedbert fusedbert=={version}"
        source = f"--no-binary=fusedbert fusedbert=={version}"  # musl, as in Alpine, has only the wheel without kernels
    if source.rstrip("'\"").endswith(".whl"):
        return f"install the wheel for this platform in place of {source}, which has none"
    install = f"{_REINSTALL} --no-cache-dir {source}"
    if any(map(shutil.which, _COMPILERS)):
        return install
    if shutil.which("apt-get"):
        return f"apt-get update && apt-get install -y gcc && {install}"
    return f"install gcc or clang, then {install}"


def _direct_url() -> dict[str, Any]:
    """Return where pip installed fusedbert from (PEP 610); empty if that was an index."""
    import importlib.metadata

    try:
        found = json.loads(importlib.metadata.distribution("fusedbert").read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _source(found: dict[str, Any]) -> str | None:
    """Return the argument of pip for a direct URL, or None if there is none."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = found.get("url")
    if not isinstance(url, str):
        return None
    vcs = found.get("vcs_info")
    if vcs:
        url = f"{vcs['vcs']}+{url}@{vcs.get('requested_revision') or vcs['commit_id']}"
    elif urlsplit(url).scheme == "file":
        url = url2pathname(urlsplit(url).path)
    quote = '"{}"'.format if sys.platform == "win32" else shlex.quote
    part = f"#subdirectory={found['subdirectory']}" if found.get("subdirectory") else ""
    return f"{'-e ' if found.get('dir_info', {}).get('editable') else ''}{quote(url + part)}"
