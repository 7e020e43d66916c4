"""docs/benchmarking.md is correct: its commands exist, and each runs in a shortened form."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest

from fusedbert.bench.cli import bench, setup
from fusedbert.bench.engines.environments import environment_of
from fusedbert.bench.engines.registry import groups, names
from fusedbert.bench.load.http.servers import SERVERS
from fusedbert.bench.report.page import write_report
from fusedbert.bench.report.text import SCHEMA, read_document

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def test_each_command_of_bench_is_on_the_page():
    for name in bench.list_commands(click.Context(bench)):
        assert re.search(rf"^fusedbert bench {name} ", "\n".join(COMMANDS), flags=re.MULTILINE), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_exists(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\S+\.(?:json|txt)", command):  # click checks that files exist
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    _, stage, name, *arguments = command.split()
    assert stage == "bench"
    found = bench.get_command(click.Context(bench), name)
    assert found is not None
    found.make_context(name, arguments)


def test_every_command_runs_in_the_order_of_the_page(clone, shortened, needs_peers):
    ours = [line for line in COMMANDS if not needs_peers(line)]
    assert {line.split()[2] for line in ours} >= {"latency", "corpus", "load", "startup", "checkpoint", "compare"}
    for command in ours:
        done = clone("bash", "-c", shortened(command))
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout, command
    assert (clone.folder / "artifacts" / "bench" / "index.html").is_file()


def test_setup_commands_name_existing_environments(setup_command):
    for name in setup.make_context("setup", setup_command.split()[3:]).params["names"]:
        assert name == "all" or environment_of(name).requirements


def test_a_comparison_names_the_environment_that_is_missing(peer_command, clone, shortened):
    done = clone("bash", "-c", shortened(peer_command))
    assert done.returncode == 0, done.stderr
    missing = re.findall(r"^\S+ missing: its environment is not built: (fusedbert bench setup \S+)$", done.stdout, re.MULTILINE)
    assert missing and set(missing) <= set(COMMANDS)


@pytest.mark.peers
@pytest.mark.timeout(900)
def test_a_comparison_measures_the_peers_where_their_environment_is(peer_command, clone, shortened):
    done = clone("bash", "-c", shortened(peer_command), peers=True)
    assert done.returncode == 0, done.stderr
    if "missing:" in done.stdout:
        pytest.skip("run fusedbert bench setup all")
    assert "geometric mean" in done.stdout or "requests per second" in done.stdout  # servers have no ratios


def test_every_engine_is_in_the_table():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert {group for group in groups() if group not in ("all", "fusedbert")} <= set(rows)
    for name in (each for each in names() if not each.startswith("fusedbert")):
        group = name.split("-")[0]
        assert f"`{name}`" in rows[group] or f"`{name.removeprefix(group)}`" in rows[group], name


def test_every_server_is_in_the_table():
    for spec in SERVERS:
        assert f"`{spec.name}`" in PAGE or (spec.is_fusedbert and "`fusedbert serve`" in PAGE), spec.name


def test_the_schema_is_that_of_this_version():
    assert SCHEMA in PAGE


def test_the_picture_shows_its_figures(tmp_path):
    write_report(read_document(ROOT / "bench" / "results" / "bert-base-growth.json"), tmp_path)
    made, shown = (ET.parse(folder / "time-per-token.svg").getroot() for folder in (tmp_path, ROOT / "docs"))
    assert "".join(made.itertext()).split() == "".join(shown.itertext()).split(), "run make readme"
