"""Tests of the kernels: on the embedded checkpoint."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded
