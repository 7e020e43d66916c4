"""Places to install a release in, and to use it there: a virtual environment, on this machine or in a bare root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import roots

LINUX, WINDOWS, ANY = "manylinux_2_17_x86_64", "win_amd64", "any"  # the platforms of a release's wheels, as pip names them
SMOKE = Path(__file__).parents[1] / "smoke.py"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Place:
    """A virtual environment, and an empty folder as working directory and home.

    On this machine PATH holds only the environment, so that no compiler is found. With ``root`` all of it is in that folder,
    which commands see as ``/``.
    """

    def __init__(self, folder: Path, *, python: str, constraints: Path, root: Path | None = None) -> None:
        self.root = root
        self.folder = folder
        self.work = folder / "empty"
        self.work.mkdir(parents=True)
        self.bin = folder / "venv" / "bin"
        self.constraints = self.bring(constraints)
        self.variables = {
            "HOME": self.inside(self.work),
            "FUSEDBERT_CACHE": self.inside(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        self.variables |= {"PATH": self.inside(self.bin), "LC_ALL": "C.UTF-8"}
        if root is None:
            kept = ("PIP_", "HTTP", "SSL_", "http", "LD_LIBRARY_PATH")
            self.variables |= {name: value for name, value in os.environ.items() if name.startswith(kept)}
        else:
            self.variables["PATH"] += ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.variables |= {"PIP_CERT": CERTIFICATES}
        self.check(python, "-m", "venv", self.inside(folder / "venv"))

    def inside(self, path: Path) -> str:
        """Return a path as the place's commands see it."""
        return str(path) if self.root is None else f"/{path.relative_to(self.root)}"

    def bring(self, path: Path) -> str:
        """Copy a file into a bare root, and return its path there."""
        if self.root is None:
            return str(path)
        copied = self.folder / path.name
        shutil.copy(path, copied)
        return self.inside(copied)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command; a name without a folder is one of the environment's."""
        tool, *arguments = command
        line = [self.inside(self.bin / tool) if (self.bin / tool).exists() and "/" not in tool else tool, *arguments]
        if self.root is not None:
            line = ["/usr/bin/env", f"--chdir={self.inside(self.work)}", *line]
            line = [*roots.ENTER, str(self.root), *line]
        return subprocess.run(
            line,
            cwd=self.work,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def check(self, *command: str) -> str:
        """Run a command that has to succeed, and return what it printed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *arguments: str) -> str:
        """Run ``pip install``."""
        pip = ["python", "-m", "pip", "install", "--disable-pip-version-check", "--root-user-action=ignore", "--no-compile"]
        return self.check(*pip, "--constraint", self.constraints, *arguments)

    def smoke(self, kernels: str) -> str:
        """Use the installation: tests/smoke.py, which knows whether ``kernels`` have to be ``there`` or ``missing``."""
        return self.check("python", self.bring(SMOKE), "--kernels", kernels)

    def packages(self) -> set[str]:
        """Return the names of what is installed, as pip lists them."""
        listed = self.check("python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check")
        return {line.split("==")[0].lower() for line in listed.splitlines()}
