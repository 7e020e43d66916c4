"""The two routes of an export: a requested one is taken or refused by name, and the direct one is the default."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fusedbert.engine.errors import OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import LeftOutWarning
from fusedbert.export.cli import shown_warnings


def test_without_its_packages_the_optimum_route_names_the_extra(checkpoint: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['optimum'] = None\n"
        "from fusedbert.engine.errors import MissingDependencyError\n"
        "from fusedbert.export import export_checkpoint\n"
        "try: export_checkpoint(sys.argv[1], sys.argv[2], via='optimum')\n"
        "except MissingDependencyError as error: print(error)"
    )
    output = tmp_path / "artifact"
    done = subprocess.run([sys.executable, "-c", code, checkpoint, output], capture_output=True, text=True, check=True)
    way_out = 'is not installed: pip install "fusedbert[optimum]"'
    assert done.stdout == f"optimum-onnx is needed to export by way of optimum, and {way_out}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_route_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="via is 'torch', expected one of direct, optimum"):
        export_checkpoint(checkpoint, tmp_path / "artifact", via="torch")


def test_each_warning_of_the_exporter_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_warnings():
        for _ in range(2):
            warnings.warn("onnx/model_fp16.onnx is left out: why", LeftOutWarning, stacklevel=1)
    streams = capsys.readouterr()
    assert streams.err == "warning: onnx/model_fp16.onnx is left out: why\n" * 2
    assert streams.out == ""
