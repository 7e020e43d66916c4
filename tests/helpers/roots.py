"""Bare roots: minimal Debians made by debootstrap.

They are kept as archives, without /dev: whoever copies the tree would read its devices, which have no end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGES = "python3,python3-venv,ca-certificates"
COMPILER = "apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev"
# In a separate namespace, so that no mount outlives the command. Arguments: the root, and the command.
ENTER = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    'for d in proc sys dev; do mount --rbind "/$d" "$1/$d"; done; exec chroot "$@"',
    "sh",
]


def missing() -> str | None:
    """Say what this machine lacks for a bare root."""
    if os.geteuid() != 0:
        return "not root"
    tools = [tool for tool in ("debootstrap", "chroot", "unshare", "tar") if shutil.which(tool) is None]
    return f"no {', '.join(tools)}" if tools else None


def unpack(folder: Path, suite: str, to: Path, *, compiler: bool = False) -> None:
    """Put the root of a Debian release with Python and nothing else into a folder, or one with gcc as well.

    ``folder`` keeps it for the next time. The root gets this machine's way to the network.

    Raises:
        OSError: It cannot be made; the end of what debootstrap or apt-get said is in the message.
    """
    archive = folder / f"{suite}{'-gcc' if compiler else ''}.tar"
    to.mkdir(parents=True)
    if archive.is_file():
        _run(["tar", "-xf", str(archive), "-C", str(to)])
    else:
        if compiler:
            unpack(folder, suite, to / "root")
            for each in (to / "root").iterdir():
                each.rename(to / each.name)
            (to / "root").rmdir()
            _run([*ENTER, str(to), "sh", "-ec", COMPILER])
        else:
            _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(to)])
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            _run(["tar", "-C", str(to), "--exclude=./dev/*", "--exclude=./var/cache/apt/*.bin", "-cf", f"{part}/root.tar", "."])
            Path(part, "root.tar").rename(archive)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        source = Path("/", name)
        if source.is_file():
            (to / name).unlink(missing_ok=True)
            shutil.copy(source, to / name)


def _run(command: list[str]) -> None:
    environment = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C",
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode != 0:
        raise OSError(f"{command[0]} failed: {' '.join((done.stdout + done.stderr).split()[-30:])}")
