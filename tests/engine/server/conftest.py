"""A server of a classifier, a ranker and a tagger, and the same models in this process, which are the judge."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_process import Service, running_service

from fusedbert.engine import Classifier, TokenClassifier


@dataclasses.dataclass(frozen=True)
class Judges:
    """The models that are served, by their names there."""

    mood: Classifier
    order: Classifier
    names: TokenClassifier


@pytest.fixture(scope="session")
def served(
    artifact_at: Callable[..., Path], tokens_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Artifacts of each kind."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "mood": artifact_at(folder / "mood", ("NEGATIVE", "NEUTRAL", "POSITIVE")),
        "order": artifact_at(folder / "order", ("RELEVANT",)),
        "names": tokens_artifact,
    }


@pytest.fixture(scope="session")
def judges(served: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    """The same models in this process."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEDBERT_CACHE", str(tmp_path_factory.mktemp("judges")))
        yield Judges(
            stack.enter_context(Classifier.from_pretrained(served["mood"], threads=1)),
            stack.enter_context(Classifier.from_pretrained(served["order"], threads=1)),
            stack.enter_context(TokenClassifier.from_pretrained(served["names"], threads=1)),
        )


@pytest.fixture(scope="session")
def service(served: dict[str, Path]) -> Iterator[Service]:
    """A server of all of them."""
    pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')
    pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')
    with running_service(*(f"{name}={path}" for name, path in served.items())) as running:
        yield running


@pytest.fixture(scope="session")
def locked(served: dict[str, Path]) -> Iterator[Service]:
    """The same with a key, "open sesame", read from the environment."""
    pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')
    pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')
    arguments = [f"{name}={path}" for name, path in served.items()]
    with running_service(*arguments, env={"FUSEDBERT_API_KEY": "open-sesame"}) as running:
        yield running
