"""The examples of the docstrings, run as they stand: on the embedded default, in a folder with the named files."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fusedbert.bench
import fusedbert.engine
import fusedbert.export
from fusedbert.engine import Classifier


def modules() -> list[str]:
    found = [
        name
        for package in (fusedbert.engine, fusedbert.export, fusedbert.bench)
        for name in (package.__name__, *(each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")))
    ]
    return sorted(name for name in found if ">>> " in _source(name))


def _source(name: str) -> str:
    """Read a module without importing it: some need packages that are not here."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8") if spec.origin.endswith(".py") else ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder to run in: the checkpoint and a table where a clone has them, and a cache that the examples share."""
    folder = tmp_path_factory.mktemp("doctests")
    (folder / "models").symlink_to(repository / "models")
    shutil.copy(repository / "examples" / "reviews.csv", folder)
    return folder


@pytest.fixture(scope="module")
def clf(home: Path) -> Iterator[Classifier]:
    with Classifier.from_pretrained(cache_dir=home / "cache") as classifier:
        yield classifier


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str, home: Path, clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("FUSEDBERT_CACHE", str(home / "cache"))
    names = {"clf": clf, "Classifier": Classifier, "Path": Path}
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), extraglobs=names):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_the_classifier_has_examples() -> None:
    assert {"fusedbert.engine", "fusedbert.engine.tasks.classifier"} <= set(modules())
