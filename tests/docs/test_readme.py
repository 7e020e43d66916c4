"""The README tells the truth: its commands and its Python run, its links lead somewhere, its figures are of this model."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fusedbert.bench.cli.setup import setup
from fusedbert.bench.engines.environments import environment_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]


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


def test_every_command_runs_in_the_order_of_the_page(clone, needs_peers):
    ours = [line for line in COMMANDS if not line.startswith(("make ", "pip ")) and not needs_peers(line)]
    assert len(ours) >= 9
    assert all(line.startswith("fusedbert ") for line in ours)
    for command in ours:
        done = clone("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout, command


def test_setup_is_asked_for_environments_that_there_are(setup_command):
    names = setup.make_context("setup", setup_command.split()[3:]).params["names"]
    assert names
    assert all(environment_of(name).requirements for name in names if name != "all")


def test_a_comparison_measures_ours_and_names_the_environment_that_is_missing(peer_command, clone, shortened):
    done = clone("bash", "-c", shortened(peer_command))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^fusedbert-int8 +[\d.]+", done.stdout, flags=re.MULTILINE)
    missing = re.findall(r"^\S+ missing: its environment is not built: (fusedbert bench setup \S+)$", done.stdout, re.MULTILINE)
    assert missing and set(missing) <= set(COMMANDS)  # the page says how


@pytest.mark.peers
@pytest.mark.timeout(900)
def test_a_comparison_measures_the_peers_where_their_environment_is(peer_command, clone, shortened):
    done = clone("bash", "-c", shortened(peer_command), peers=True)
    assert done.returncode == 0, done.stderr
    if "missing:" in done.stdout:
        pytest.skip("run fusedbert bench setup all")
    assert "geometric mean" in done.stdout


def test_the_python_prints_what_its_comments_say(clone):
    program, _ = blocks("python")
    assert len(program.splitlines()) < 50
    done = clone(sys.executable, "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert re.fullmatch(r"\[\{'label': 'POSITIVE', 'score': 0\.99\d+\}\]", printed[0])
    assert "['NEGATIVE', 'POSITIVE']" in printed
    assert "(2, 2)" in printed
    assert re.search(r"max_length is 512", printed[-1])
    assert len([line for line in printed if line in ("POSITIVE", "NEGATIVE")]) == 10


def test_the_service_s_python_prints_what_its_comments_say(clone):
    _, program = blocks("python")
    done = clone(sys.executable, "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[:2] == ["['NEGATIVE', 'POSITIVE']", "2 1"]
    assert "fusedbert_texts_total 2" in printed


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
