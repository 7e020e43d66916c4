"""A fresh process with the runtime loads only the modules it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "onnx", "optimum", "scipy", "safetensors", "pandas")
REPORT = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def loaded(code: str, *arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}", *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_no_heavy_module() -> None:
    names = loaded("import fusedbert.engine")
    assert names.isdisjoint({*HEAVY, "numpy", "tokenizers", "onnxruntime", "click", "huggingface_hub"})


def test_importing_the_classifier_needs_no_onnxruntime() -> None:
    names = loaded("from fusedbert.engine import Classifier, Runtime")
    assert {"numpy", "tokenizers"} <= names
    assert names.isdisjoint({*HEAVY, "onnxruntime", "click", "huggingface_hub"})


def test_running_an_artifact_loads_no_heavy_module(artifact: Path) -> None:
    code = "import sys\nfrom fusedbert.engine import Classifier\nprint(Classifier.from_pretrained(sys.argv[1])('good'))"
    names = loaded(code, str(artifact))
    assert "onnxruntime" in names
    assert names.isdisjoint({*HEAVY, "click", "huggingface_hub", "fusedbert.export"})


def test_no_part_of_the_engine_imports_another_stage(artifact: Path) -> None:
    code = (
        "import sys, pkgutil, importlib, fusedbert.engine as engine\n"
        "for module in pkgutil.walk_packages(engine.__path__, 'fusedbert.engine.'): importlib.import_module(module.name)\n"
        "assert not [name for name in sys.modules if name.startswith(('fusedbert.export', 'fusedbert.bench'))]"
    )
    assert loaded(code).isdisjoint({*HEAVY, "huggingface_hub"})


def test_all_public_names_can_be_imported() -> None:
    import fusedbert.engine as engine

    assert all(getattr(engine, name) for name in engine.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(engine, "no_such_" + "name")
