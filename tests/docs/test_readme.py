"""The README and docs/measurements.md: commands and Python run, links lead to files, figures are those of the results."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]


def test_installation_stands_on_the_first_screen_and_the_whole_is_short():
    assert COMMANDS[0].startswith("pip install")
    assert README.splitlines().index(COMMANDS[0]) < 24
    assert len(README.splitlines()) <= 170


def test_the_readme_has_the_two_commands_of_a_newcomer():
    assert COMMANDS[-2:] == ["make demo", "make test"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_each_target(command):
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("pip ")])
def test_pip_commands_name_existing_extras(command):
    (extras,) = re.findall(r'^pip install "\.\[([a-z,]+)\]"$', command)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_every_command_runs_in_the_order_of_the_page(clone, needs_peers):
    others = ("make ", "pip ", "fusedbert serve ", "curl ")  # the server is called in test_serving_page.py
    ours = [line for line in COMMANDS if not line.startswith(others) and not needs_peers(line)]
    assert {line.split()[1] for line in ours} == {"export", "classify", "rank", "score", "explain", "doctor", "bench"}
    assert all(line.startswith("fusedbert ") for line in ours)
    for command in ours:
        done = clone("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if written := re.search(r" -o (\S+)", command):
            assert (clone.folder / written[1]).stat().st_size, command
        else:
            assert done.stdout, command


def test_the_python_prints_what_its_comments_say(clone):
    program, _ = blocks("python")
    assert len(program.splitlines()) <= 10
    done = clone(sys.executable, "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert re.fullmatch(r"\[\{'label': 'POSITIVE', 'score': 0\.99\d+\}\]", printed[0])
    assert "['NEGATIVE', 'POSITIVE']" in printed
    assert "(2, 2)" in printed
    assert re.fullmatch(r"\[\{'corpus_id': 1, 'score': 0\.99\d+\}\]", printed[-2])
    assert printed[-1].startswith("cpu ")


def test_the_python_of_the_service_prints_what_its_comments_say(clone):
    _, program = blocks("python")
    done = clone(sys.executable, "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[:2] == ["['NEGATIVE', 'POSITIVE']", "2 1"]
    assert "fusedbert_texts_total 2" in printed


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "engine").rglob("*.md"), *(ROOT / "bench").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_the_accuracy_is_that_of_the_model_card():
    card = (ROOT / "models" / "sst2-mini" / "README.md").read_text(encoding="utf-8")
    (measured,) = re.findall(r"SST-2 dev \(872 sentences\) \| ([\d.]+)%", card)
    row = next(line for line in MEASUREMENTS.splitlines() if line.startswith("| accuracy, SST-2 dev"))
    assert f"| {measured} % |" in row
