"""The build of the library by setup.py: its compiler, where it goes, and the line that says why there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILT = "build/lib/fusedbert/engine/kernels"
EDITABLE = "import setuptools.build_meta as build; print(build.build_editable({folder!r}))"


@pytest.fixture
def setup(source):
    """Run setup.py in the copy of the source, with these variables; returns what it printed, and the libraries it left."""

    def run(*arguments, **variables):
        environment = {name: value for name, value in os.environ.items() if name != "CC"} | variables
        line = [sys.executable, "setup.py", *arguments]
        done = subprocess.run(line, cwd=source, env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        built = {path.name for path in (source / BUILT).glob("*") if path.suffix in (".so", ".dll", ".dylib")}
        return done.stdout + done.stderr, built

    return run


def compiler(folder: Path, script: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def needs_compiler():
    if sys.platform != "linux" or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no compiler here, or not Linux")


def test_without_a_compiler_one_line_says_that_there_are_no_kernels(setup):
    said, built = setup("build_kernels", PATH="/nonexistent")
    lines = [line for line in said.splitlines() if "kernels were not built" in line]
    assert len(lines) == 1 and lines[0].endswith("no compiler: cc, gcc or clang was not found")
    assert built == set()


def test_a_compiler_that_cc_names_and_that_is_missing_is_named(setup):
    said, built = setup("build_kernels", CC="/nonexistent/zig cc")
    assert "no compiler: /nonexistent/zig was not found" in said
    assert built == set()


def test_the_first_error_of_a_compiler_that_fails_is_shown(setup, tmp_path):
    said, built = setup(
        "build_kernels", CC=compiler(tmp_path, "echo 'warning\na.c:1:2: error: one\nb.c: error: two' >&2; exit 3")
    )
    assert f"{tmp_path}/cc failed with status 3: a.c:1:2: error: one" in said and "two" not in said
    assert built == set()


def test_a_compiler_that_cannot_run_is_named(setup, tmp_path):
    program = tmp_path / "cc"
    program.write_bytes(b"\x7fELF for another processor")
    program.chmod(0o755)
    said, built = setup("build_kernels", CC=str(program))
    assert f"{program} does not run: " in said and "Traceback" not in said
    assert built == set()


def test_a_cc_with_an_open_quotation_is_named(setup):
    said, built = setup("build_kernels", CC="gcc '-O1")
    assert "CC is not a command: No closing quotation" in said
    assert built == set()


@pytest.mark.parametrize("script", ["exit 0", "exit 4"])
def test_a_compiler_that_fails_without_a_word_shows_its_status(setup, tmp_path, script):
    said, built = setup("build_kernels", CC=compiler(tmp_path, script))
    assert f"failed with status {script[-1]}" in said and "Traceback" not in said
    assert built == set()


def test_a_library_for_another_system_is_not_taken(setup, tmp_path):
    writes = 'while [ "$1" != -o ]; do shift; done; printf MZ > "$2"'
    said, built = setup("build_kernels", CC=compiler(tmp_path, writes))
    assert "does not build for linux_x86_64" in said
    assert built == set()


@pytest.mark.parametrize("platform", ["linux-aarch64", "win32", "macosx-11.0-arm64", "any"])
def test_other_processors_get_no_library(setup, platform):
    said, built = setup("bdist_wheel", "--skip-build", f"--plat-name={platform}", "build_kernels")
    assert "written for x86-64" in said
    assert built == set()


def test_a_library_of_another_platform_leaves_the_build_folder(setup, needs_compiler, source):
    assert setup("build_kernels")[1] == {"fusedbert_kernels.x86_64.so"}
    assert setup("build_kernels", PATH="/nonexistent")[1] == set()


def test_an_editable_installation_builds_into_the_source_and_replaces_what_runs(source, tmp_path, needs_compiler):
    library = source / "engine/kernels/fusedbert_kernels.x86_64.so"

    def install(**variables):
        line = [sys.executable, "-c", EDITABLE.format(folder=str(tmp_path))]
        subprocess.run(line, cwd=source, env=os.environ | variables, capture_output=True, timeout=200, check=True)

    first = None
    try:
        install()
        assert library.read_bytes().startswith(b"\x7fELF")
        assert {path.name for path in library.parent.glob("*.*") if path.suffix in (".so", ".dll")} == {library.name}
        first = library.open("rb")
        install()
        assert os.fstat(first.fileno()).st_ino != library.stat().st_ino  # the old one stays as it was, for those who run it
        install(CC="/nonexistent/cc")
        assert not library.exists()  # else a library would stay that does not fit its sources
    finally:
        if first is not None:
            first.close()
        library.unlink(missing_ok=True)
