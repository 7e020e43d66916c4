"""Fixtures for the tests of pages with commands: the commands, a clone to run them in, and shorter forms of long ones."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Options that make a measurement take seconds; of an option given twice the last one counts.
SHORT = {
    "latency": ["--shapes", "1x16", "--rounds", "1", "--seconds", "0.02", "--threads", "1"],
    "corpus": ["--limit", "4", "--rounds", "1", "--threads", "1"],
    "rank": ["--shapes", "4x16", "--rounds", "1", "--seconds", "0.02", "--threads", "1"],
    "load": ["--rates", "20", "--seconds", "0.2", "--threads", "1"],
    "startup": ["--rounds", "1", "--threads", "1"],
}


def shorten(command):
    """Return a command of ``fusedbert bench`` that measures little, on the embedded model."""
    words = shlex.split(command)
    assert words[:2] == ["fusedbert", "bench"], command
    if words[2] == "checkpoint":
        return shlex.join(["small" if word in ("base", "large") else word for word in words])
    if words[2] not in SHORT:
        return command
    if "-m" in words:
        place = words.index("-m")
        del words[place : place + 2]
    return shlex.join([*words, *SHORT[words[2]]])


@pytest.fixture(scope="session")
def shortened():
    """Make a long command of ``fusedbert bench`` short."""
    return shorten


class Clone:
    """A clone after ``make demo``; a call runs a command there with .venv active.

    No environment of another engine is built there, whatever this machine has; ``peers=True`` uses those of this machine.
    """

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *command, peers=False):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path}
        if not peers:
            variables = {name: value for name, value in variables.items() if not name.startswith("FUSEDBERT_BENCH")}
            variables["FUSEDBERT_CACHE"] = str(self.folder / "cache")
        return subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="module")
def clone(artifact, repository, tmp_path_factory):
    """A ``Clone`` with the models, the examples and the exported artifact."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("models", "examples"):
        (folder / name).symlink_to(repository / name)
    shutil.copytree(artifact, folder / "artifacts" / "sst2-mini")
    return Clone(folder)


def is_setup(command):
    """Return whether a command builds environments."""
    return command.startswith("fusedbert bench setup ")


def compares(command):
    """Return whether a command measures engines other than fusedbert."""
    named = re.search(r"--against (\S+)", command)
    return named is not None and not all(name.startswith("fusedbert-") for name in named[1].split(","))


def pytest_generate_tests(metafunc):
    """Give a test the commands of its module's page, sorted by what they need."""
    commands = getattr(metafunc.module, "COMMANDS", ())
    if "setup_command" in metafunc.fixturenames:
        metafunc.parametrize("setup_command", [command for command in commands if is_setup(command)])
    if "peer_command" in metafunc.fixturenames:
        metafunc.parametrize("peer_command", [command for command in commands if compares(command)])


@pytest.fixture(scope="session")
def needs_peers():
    """Return a function that says whether a command needs another engine's environment."""
    return lambda command: is_setup(command) or compares(command)
