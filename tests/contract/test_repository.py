"""The repository itself: no path of a single machine, a Makefile that lists its targets and refuses an old Python."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def tracked(repository):
    """List the files that are, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout.decode().split("\0")
    return [repository / name for name in names if name and (repository / name).is_file()]


def machine_paths(text, repository, home):
    """Find absolute paths that exist on one machine only: home folders, and the folder of this clone."""
    patterns = [r"/(?:home|Users)/(?!someone\b|user\b)\w[\w.-]*", r"\b[A-Z]:\\\\?Users\\"]
    patterns += [re.escape(str(folder)) + r"(?=[/\W]|$)" for folder in (repository, home) if len(folder.parts) > 1]
    return [found[0] for pattern in patterns for found in re.finditer(r"(?<![\w.~%$}-])" + pattern, text)]


def test_no_file_names_a_path_of_one_machine(repository):
    found = {}
    for path in tracked(repository):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights
        if path != Path(__file__) and (paths := machine_paths(text, repository, Path.home())):
            found[path.relative_to(repository).as_posix()] = paths
    assert found == {}


@pytest.mark.parametrize(
    "text", ["see /home/anna/x", 'open("/srv/clone/a.txt")', "/Users/bo/model", r"C:\Users\bo", "cd /srv/clone"]
)
def test_a_path_of_one_machine_is_detected(text):
    assert machine_paths(text, Path("/srv/clone"), Path("/"))


@pytest.mark.parametrize(
    "text",
    ["#!/usr/bin/env bash", "/proc/cpuinfo", "https://example.org/home/page", "~/home", "/home/someone/x", "/srv/cloned"],
)
def test_other_paths_pass(text):
    assert machine_paths(text, Path("/srv/clone"), Path("/")) == []


def make(repository, *args, **keywords):
    return subprocess.run(["make", *args], cwd=repository, capture_output=True, text=True, timeout=60, check=False, **keywords)


def test_make_without_a_target_lists_them_all(repository):
    listed = set(re.findall(r"^  make ([a-z-]+)  +\S", make(repository).stdout, flags=re.MULTILINE))
    declared = re.search(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert declared is not None and listed == set(declared[1].split())
    assert {"demo", "test", "test-all", "lint", "types", "wheel", "clean", "help"} <= listed


def test_gpu_check_gets_arguments_that_it_takes(repository):
    line = ["gpu-check", f"PYTHON={sys.executable}", "GPU_CHECK=--list"]
    listed = make(repository, *line, "SST2=dev.tsv")
    assert listed.returncode == 0 and listed.stdout.startswith("parity "), listed.stderr
    assert "--wheels" not in make(repository, "-n", *line).stdout
    assert "--wheels folder " in make(repository, "-n", *line, "WHEELS=folder").stdout


@pytest.mark.parametrize("target", ["demo", "test", "gpu-check"])
def test_an_old_python_is_refused_in_two_lines(repository, tmp_path, target):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2' && exit 0\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = make(repository, target, f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is Python 3.9.2" in done.stderr
    assert f"make {target} PYTHON=python3.11" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_test_command_of_the_readme(repository):
    steps = re.findall(r"^step (\S+)$", (repository / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    (everything,) = re.findall(r"^test-all: (.*?)  ##", makefile, flags=re.MULTILINE)
    assert steps == ["lint", "types", *everything.split()] and steps[2] == "test"
    assert "make test" in (repository / "README.md").read_text(encoding="utf-8")
    assert (repository / ".ci" / "run").stat().st_mode & 0o111


def test_constraints_pin_exactly_and_cover_what_is_declared(repository):
    import tomllib

    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [
        *project["dependencies"],
        *(line for name in ("cpu", "export", "bench", "test", "lint") for line in extras[name]),
    ]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in declared} - {"fusedbert"}
    assert names <= pinned


def mapped(page):
    """Return the folders and files that the map of docs/architecture.md names."""
    (tree,) = re.findall(r"^```text\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    found, above = set(), []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        (names,) = re.findall(r"^ *((?:[\w.-]+/?(?:  (?=\w+/))?)+)", line)
        for name in names.split():
            above = [*above[:depth], name.rstrip("/")]
            found.add("/".join(above))
    return found


def test_the_map_in_architecture_md_matches_the_tree(repository):
    found = mapped((repository / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert {name for name in found if not (repository / name).exists()} == set()
    folders = {
        path.parent.relative_to(repository).as_posix() for stage in STAGES for path in (repository / stage).rglob("*.py")
    }
    assert folders - found == set(), "folders that the map does not name"


STAGES = ("engine", "export", "bench")


def test_folders_and_files_are_small(repository):
    paths = [path for path in tracked(repository) if path.relative_to(repository).parts[0] in (*STAGES, "tests")]
    entries = {}
    for path in paths:
        parts = path.relative_to(repository).parts
        for end in range(1, len(parts)):
            entries.setdefault("/".join(parts[:end]), set()).add(parts[end])
    named = {folder: names - {"__init__.py", "py.typed"} for folder, names in entries.items()}
    assert {folder: len(names) for folder, names in named.items() if len(names) > 13} == {}
    code = [path for path in paths if path.suffix in (".py", ".c", ".h") and path.relative_to(repository).parts[0] in STAGES]
    long = {str(path.relative_to(repository)): n for path in code if (n := path.read_text(encoding="utf-8").count("\n")) > 400}
    assert long == {}
