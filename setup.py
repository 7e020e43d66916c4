"""The library of kernels: built by a C compiler into the wheel, or into the source tree for an editable installation.

It is package data and no Python module, so one wheel serves every Python. Without a compiler the package installs without it.
README.md is fitted to a package index here; all else is in pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

SOURCES = Path("engine/kernels")
PACKAGE = Path("fusedbert/engine/kernels")
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-g0", "-s"]
# System -> the library's suffix and first bytes; the bytes tell of a compiler that builds for another system.
FORMATS = {"linux": (".so", b"\x7fELF\x02"), "win": (".dll", b"MZ"), "macosx": (".dylib", b"\xcf\xfa\xed\xfe")}


class BuildKernels(Command):
    """Compile the library for the platform that ``bdist_wheel --plat-name`` names; this machine's if it names none."""

    description = "compile the C kernels"
    user_options: list[tuple[str, str | None, str | None]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))
        platform = re.sub("[^a-z0-9]", "_", self.get_finalized_command("bdist_wheel").plat_name.lower())
        known = re.fullmatch("(?:many|musl)?(linux|win|macosx)_(?:.*_)?(?:x86_64|amd64)", platform)
        self.platform, self.format = platform, FORMATS[known[1]] if known else None

    def get_source_files(self) -> list[str]:
        return sorted(path.as_posix() for suffix in "ch" for path in SOURCES.rglob(f"*.{suffix}"))

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self._libraries(Path(self.build_lib) / PACKAGE)]

    def get_output_mapping(self) -> dict[str, str]:
        in_place = self._libraries(SOURCES) if self.editable_mode else []
        return {str(Path(self.build_lib) / PACKAGE / path.name): str(path) for path in in_place}

    def run(self) -> None:
        folder = SOURCES if self.editable_mode else Path(self.build_lib) / PACKAGE
        try:
            built = self._compile()
        except LookupError as reason:
            built = None
            self.warn(f"the kernels were not built, so ONNX Runtime's do all the work: {reason}")
        for old in self._libraries(folder):  # of another platform, or of other sources
            if built is None or old.name != built.name:
                old.unlink()
        if built is not None:  # renamed, not written: a process may be running the old one
            folder.mkdir(parents=True, exist_ok=True)
            new = Path(shutil.move(built, folder / f"{built.name}.new"))
            new.replace(folder / built.name)
            self.announce(f"built {folder / built.name}", level=2)

    def _libraries(self, folder: Path) -> list[Path]:
        return [path for suffix, _ in FORMATS.values() for path in folder.glob(f"*{suffix}")]

    def _compile(self) -> Path:
        """Return the library that was built, in build/; LookupError says why there is none."""
        if self.format is None:
            raise LookupError(f"they are written for x86-64 on Linux, Windows and macOS, and this is for {self.platform}")
        suffix, magic = self.format
        try:
            named = shlex.split(os.environ.get("CC", ""), posix=os.name == "posix")
        except ValueError as error:
            raise LookupError(f"CC is not a command: {error}") from None
        found = next(filter(None, map(shutil.which, named[:1] or ("cc", "gcc", "clang"))), None)
        if found is None:
            raise LookupError(f"no compiler: {named[0] if named else 'cc, gcc or clang'} was not found")
        library = Path(self.get_finalized_command("build").build_temp) / f"fusedbert_kernels.x86_64{suffix}"
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        sources = [path for path in self.get_source_files() if path.endswith(".c")]
        command = [found, *named[1:], *FLAGS, *sources, "-o", str(library)]
        self.announce(shlex.join(command), level=2)
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        except OSError as error:  # such as a program for another processor
            raise LookupError(f"{found} does not run: {error.strerror}") from None
        if done.returncode != 0 or not library.is_file():
            lines = [*(line for line in done.stderr.splitlines() if "error" in line), *done.stderr.split("\n")[:1]]
            raise LookupError(f"{found} failed with status {done.returncode}: {lines[0]}")
        if not library.read_bytes().startswith(magic):
            raise LookupError(f"{found} does not build for {self.platform}")
        library.chmod(0o755)
        return library


class Build(build):
    """The usual build, and the kernels."""

    sub_commands = [*build.sub_commands, ("build_kernels", None)]


class Wheel(bdist_wheel):
    """A wheel for every Python: of one platform with the library, of any without."""

    def run(self) -> None:
        self.run_command("build")
        if self.get_finalized_command("build_kernels").get_outputs():
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True  # so that all goes where files of one platform go
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", "any" if self.root_is_pure else super().get_tag()[2]


def readme() -> str:
    """Return README.md as a package index shows it: there a relative link leads nowhere.

    It becomes a link into the repository, if pyproject.toml names one as the project's Source, else plain text.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project.get("urls", {}).get("Source")
    link = rf"[\1]({source}/blob/v{project['version']}/\2)" if source else r"\1"
    return re.sub(r"\[([^]\n]+)\]\((?![a-z]+:|#)([^)]+)\)", link, Path("README.md").read_text(encoding="utf-8"))


setup(
    cmdclass={"build": Build, "build_kernels": BuildKernels, "bdist_wheel": Wheel},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
