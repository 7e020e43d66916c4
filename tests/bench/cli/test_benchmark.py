"""The end of a benchmark: an engine's report keeps its name, and the exit status depends on fusedbert's entries."""

import json

import click
import pytest

from fusedbert.bench.cli.benchmark import deliver
from fusedbert.bench.engines.registry import spec_of
from fusedbert.bench.run.interleave import EngineProcess, Status
from fusedbert.bench.run.setup import Shared


def shared(**changes):
    chosen = {"model": None, "checkpoint": None, "against": (), "threads": None, "device": "cpu", "precision": "auto"}
    return Shared(**{**chosen, "rounds": None, "as_json": True, "report": None, **changes})


def process(name, status):
    described = {"name": "x", "engine": f"{spec_of(name).engine} 0.1.0", "precision": "fp32", "threads": 2, "why": "so"}
    return EngineProcess(spec=spec_of(name), status=status, why="ended", description=described)


def document(**statuses):
    return {"contenders": [process(name.replace("_", "-"), status).entry() for name, status in statuses.items()]}


def test_an_entry_joins_the_registry_and_the_report_of_the_engine():
    entry = process("fusedbert-fp32", Status.MEASURED).entry()
    assert (entry["name"], entry["engine"], entry["title"]) == ("fusedbert-fp32", "fusedbert", spec_of("fusedbert-fp32").title)
    assert (entry["threads"], entry["why"]) == (2, "so")
    assert process("openvino-int8", Status.MEASURED).entry()["engine"] == "openvino"


def test_one_measured_entry_of_fusedbert_is_enough(capsys):
    shown = document(fusedbert_fp32=Status.WRONG, fusedbert_int8=Status.MEASURED)
    deliver(shown, shared(), str)
    assert json.loads(capsys.readouterr().out) == shown


@pytest.mark.parametrize("status", [Status.WRONG, Status.FAILED, Status.MISSING])
def test_without_a_measured_entry_of_fusedbert_the_run_fails(status, capsys):
    with pytest.raises(click.exceptions.Exit) as left:
        deliver(document(fusedbert_fp32=status, openvino_fp32=Status.MEASURED), shared(), str)
    assert left.value.exit_code == 1
    assert capsys.readouterr().out  # the results are kept


def test_an_interrupted_run_says_so_and_exits_with_130(capsys):
    with pytest.raises(click.exceptions.Exit) as left:
        deliver(document(fusedbert_fp32=Status.INTERRUPTED), shared(), str, interrupted=True)
    assert left.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err
