"""The README tells the truth: its commands and its Python run, its links lead somewhere, its figures are of this model."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def clone(artifact, tmp_path_factory):
    """What a clone looks like after ``make demo``, and a function that runs a command there with .venv active."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("models", "examples"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(artifact, folder / "artifacts" / "sst2-mini")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FUSEDBERT_CACHE": str(folder / "cache")}

    def run(*command):
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_each_target(command):
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("pip ")])
def test_pip_is_asked_for_extras_that_exist(command):
    extras = re.fullmatch(r'pip install "\.\[([a-z,]+)\]"', command)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])


def test_every_command_runs_in_the_order_of_the_page(clone):
    ours = [line for line in COMMANDS if not line.startswith(("make ", "pip "))]
    assert len(ours) >= 5
    assert all(line.startswith("fusedbert ") for line in ours)
    for command in ours:
        done = clone("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout, command


def test_the_python_prints_what_its_comments_say(clone):
    (program,) = blocks("python")
    assert len(program.splitlines()) < 50
    done = clone(sys.executable, "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert re.fullmatch(r"\[\{'label': 'POSITIVE', 'score': 0\.99\d+\}\]", printed[0])
    assert "['NEGATIVE', 'POSITIVE']" in printed
    assert "(2, 2)" in printed
    assert re.search(r"max_length is 512", printed[-1])
    assert len([line for line in printed if line in ("POSITIVE", "NEGATIVE")]) == 10


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tree_names_folders_that_exist():
    (tree,) = blocks("text")
    names = re.findall(r"^([a-z]+)/ ", tree, flags=re.MULTILINE)
    assert {"export", "engine", "bench", "models", "docs", "examples", "tests"} == set(names)
    assert all((ROOT / name).is_dir() for name in names)


def test_the_accuracy_is_the_model_card_s():
    card = (ROOT / "models" / "sst2-mini" / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"SST-2 dev \(872 sentences\) \| ([\d.]+)%", card)[1]
    row = next(line for line in README.splitlines() if line.startswith("| accuracy, SST-2 dev"))
    assert f"| {measured} % |" in row
