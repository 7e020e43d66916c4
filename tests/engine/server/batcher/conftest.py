from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusedbert.engine import Classifier


@pytest.fixture
def clf(artifact: Path) -> Iterator[Classifier]:
    with Classifier.from_pretrained(artifact, threads=1) as classifier:
        yield classifier
