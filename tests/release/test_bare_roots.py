"""The release where nothing is installed: each wheel and the sdist in a minimal Debian, and with each Python that is here.

Where a Debian cannot be made, a fresh environment whose PATH has no compiler takes its place, and the summary says so.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import roots
from places import ANY, LINUX, WINDOWS, Place

pytestmark = [pytest.mark.release, pytest.mark.timeout(900)]
EXTRAS = "[cpu,export]"


@pytest.fixture(scope="module")
def space():
    """A folder for roots and environments, in memory where there is some: a disk takes minutes to remove them."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 6e9
    folder = Path(tempfile.mkdtemp(prefix="fusedbert-release-", dir=memory if roomy else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def place_in(repository, space):
    """Return a function that makes a place in a copy of a bare root, or by a Python of this machine."""
    numbers = itertools.count()

    def make(*, suite: str | None = None, compiler: bool = False, python: str = "/usr/bin/python3") -> Place:
        folder = space / str(next(numbers))
        if suite is None:
            return Place(folder, python=python, constraints=repository / "constraints.txt")
        roots.unpack(repository / ".venv-release" / "roots", suite, folder, compiler=compiler)
        return Place(folder / "srv" / "place", python=python, constraints=repository / "constraints.txt", root=folder)

    return make


def no_debian(reason):
    warnings.warn(f"no bare root ({reason}): a fresh environment without a compiler in place of it", stacklevel=2)


@pytest.fixture(scope="module")
def bare(place_in):
    """Debian 12 with Python 3.11 and no compiler, with the wheel of Linux."""
    lacking = roots.missing()
    if lacking is None:
        place = place_in(suite="bookworm")
    else:
        no_debian(lacking)
        place = place_in(python=sys.executable)
    look = "import shutil; print([tool for tool in ('cc', 'gcc', 'clang') if shutil.which(tool)])"
    assert place.check("python", "-c", look) == "[]\n"
    return place


def test_the_linux_wheel_has_the_kernels_where_no_compiler_is(bare, released):
    bare.install(f"{bare.bring(released(LINUX))}{EXTRAS}")
    print(bare.smoke("there"))


def test_of_all_wheels_pip_takes_the_platforms(bare, released, version):
    for kind in (LINUX, ANY):
        bare.bring(released(kind))
    with contextlib.suppress(pytest.skip.Exception):
        bare.bring(released(WINDOWS))
    folder = str(Path(bare.bring(released(LINUX))).parent)
    said = bare.install("--no-index", "--no-deps", "--force-reinstall", "--find-links", folder, f"fusedbert=={version}")
    assert released(LINUX).name in said


def test_the_wheel_for_any_platform_works_without_kernels(bare, released):
    bare.install("--no-deps", "--force-reinstall", bare.bring(released(ANY)))
    print(bare.smoke("missing"))


def test_the_sdist_installs_where_no_compiler_is(bare, released):
    bare.install("--no-cache-dir", "--no-deps", "--force-reinstall", bare.bring(released("sdist")))
    print(bare.smoke("missing"))


def test_the_sdist_builds_the_kernels_where_gcc_is(place_in, released):
    lacking = roots.missing()
    if lacking is None:
        place = place_in(suite="bookworm", compiler=True)
    else:
        no_debian(lacking)
        place = place_in(python=sys.executable)
        place.variables["PATH"] += f":{os.environ['PATH']}"
    place.install("--no-cache-dir", f"{place.bring(released('sdist'))}{EXTRAS}")
    print(place.smoke("there"))


def test_the_linux_wheel_serves_debians_newest_python(place_in, released):
    lacking = roots.missing()
    if lacking is not None:
        pytest.skip(f"no bare root: {lacking}")
    try:
        place = place_in(suite="sid")
    except OSError as error:
        raise pytest.skip.Exception(str(error)) from None
    place.install(f"{place.bring(released(LINUX))}{EXTRAS}")
    print(place.smoke("there"))


def interpreter(name):
    """Find a Python that runs, on PATH or among pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*filter(None, [shutil.which(name)]), *map(str, sorted(versions.glob(f"*/bin/{name}"), reverse=True))]
    for path in found:
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3.14", "python3.13t", "python3.14t"])
def test_the_linux_wheel_serves_other_pythons(name, place_in, released):
    python = interpreter(name)
    if python is None:
        pytest.skip(f"no {name} here")
    place = place_in(python=python)
    place.install(f"{released(LINUX)}{EXTRAS}")
    print(place.smoke("there"))
