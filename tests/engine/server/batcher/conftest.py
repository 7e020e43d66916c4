from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.model import Model


@pytest.fixture
def clf(artifact: Path) -> Iterator[Classifier]:
    with Classifier.from_pretrained(artifact, threads=1) as classifier:
        yield classifier


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Runs of the graph wait until this is set."""
    event = threading.Event()
    inner = Model.run

    def run(model: Model, texts: Any, rows: Any) -> Any:
        assert event.wait(20)
        return inner(model, texts, rows)

    monkeypatch.setattr(Model, "run", run)
    yield event
    event.set()
