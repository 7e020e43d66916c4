"""Importing and running the engine on an artifact loads none of the heavy packages, and says nothing."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "onnx", "optimum", "scipy", "safetensors", "pandas", "sklearn"}
AT_EXIT = """
import atexit, json, pathlib, sys
atexit.register(lambda: pathlib.Path(sys.argv[2]).write_text(json.dumps(sorted(sys.modules))))
"""
PREDICT = """
from fusedbert.engine import Classifier
with Classifier.from_pretrained(sys.argv[1], device="cpu") as clf:
    clf("I really loved this movie.")
    clf.predict_proba(["a", "b"])
"""
CLASSIFY = """
from fusedbert.engine.cli import main
main(["classify", "-m", sys.argv[1], "--device", "cpu", "a text"])
"""


@pytest.mark.parametrize("program", ["import fusedbert.engine", PREDICT, CLASSIFY], ids=["import", "predict", "classify"])
def test_running_an_artifact_loads_nothing_heavy(artifact, tmp_path, program):
    listing = tmp_path / "modules.json"
    command = [sys.executable, "-c", AT_EXIT + program, str(artifact), str(listing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    modules = json.loads(listing.read_text(encoding="utf-8"))
    assert "fusedbert.engine" in modules
    assert {name.split(".")[0] for name in modules} & HEAVY == set()
    assert not [name for name in modules if name.startswith(("fusedbert.export", "fusedbert.bench"))]
