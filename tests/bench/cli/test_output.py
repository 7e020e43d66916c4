"""The end of a benchmark: what a contender says of itself does not hide whose it is, and the exit status goes by that."""

import json

import click
import pytest

from fusedbert.bench.cli.options import Shared
from fusedbert.bench.cli.output import deliver
from fusedbert.bench.engines.registry import kind_of
from fusedbert.bench.run.lane import Lane, Status


def shared(**changes):
    chosen = {"model": None, "checkpoint": None, "against": (), "threads": None, "device": "cpu", "precision": "auto"}
    return Shared(**{**chosen, "rounds": None, "as_json": True, "report": None, **changes})


def lane(name, status):
    described = {"name": "x", "engine": f"{kind_of(name).engine} 0.1.0", "precision": "fp32", "threads": 2, "why": "so"}
    return Lane(kind=kind_of(name), status=status, why="ended", description=described)


def document(**statuses):
    return {"contenders": [lane(name.replace("_", "-"), status).entry() for name, status in statuses.items()]}


def test_the_registry_says_whose_a_contender_is_and_itself_says_the_rest():
    entry = lane("fusedbert-fp32", Status.MEASURED).entry()
    assert (entry["name"], entry["engine"], entry["title"]) == ("fusedbert-fp32", "fusedbert", kind_of("fusedbert-fp32").title)
    assert (entry["threads"], entry["why"]) == (2, "so")
    assert lane("openvino-int8", Status.MEASURED).entry()["engine"] == "openvino"


def test_one_of_ours_that_was_measured_is_enough(capsys):
    shown = document(fusedbert_fp32=Status.WRONG, fusedbert_int8=Status.MEASURED)
    deliver(shown, shared(), str)
    assert json.loads(capsys.readouterr().out) == shown


@pytest.mark.parametrize("status", [Status.WRONG, Status.FAILED, Status.MISSING])
def test_none_of_ours_measured_is_a_failure_whatever_the_peers_did(status, capsys):
    with pytest.raises(click.exceptions.Exit) as left:
        deliver(document(fusedbert_fp32=status, openvino_fp32=Status.MEASURED), shared(), str)
    assert left.value.exit_code == 1
    assert capsys.readouterr().out  # the results are there all the same


def test_an_interrupted_run_says_so_and_leaves_with_130(capsys):
    with pytest.raises(click.exceptions.Exit) as left:
        deliver(document(fusedbert_fp32=Status.INTERRUPTED), shared(), str, interrupted=True)
    assert left.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err
