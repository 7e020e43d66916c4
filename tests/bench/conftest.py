import dataclasses
from pathlib import Path

import fake_engines
import numpy as np
import pytest

from fusedbert.bench.engines.base import EngineSpec, Job
from fusedbert.bench.engines.environments import OURS
from fusedbert.bench.run.interleave import Patience, RunSettings
from fusedbert.bench.run.reference import Checks


@pytest.fixture(scope="session")
def fakes():
    """The module with the fake engines; workers find it by PYTHONPATH."""
    return fake_engines


@pytest.fixture
def spec():
    """Make a registry entry for a fake engine."""

    def make(name, /, **changes):
        entry = EngineSpec(
            name=name,
            title=f"fake {name}",
            engine="fake",
            precision="fp32",
            environment=OURS,
            implementation="fake:Fake",
            devices=("cpu",),
        )
        return dataclasses.replace(entry, **changes)

    return make


@pytest.fixture
def settings(fakes, checkpoint, tmp_path):
    """Settings that run the fakes in the real worker."""
    job = Job(checkpoint=None, artifact=checkpoint, work=tmp_path, device="cpu", threads=1, max_length=64)
    return RunSettings(
        job=job,
        patience=Patience(prepare=60, load=60, check=60, visit=60),
        python_path=(Path(fake_engines.__file__).parent,),
        factories=dict.fromkeys(fakes.FAKES, "fake_engines:make"),
    )


@pytest.fixture
def checks(fakes):
    """Twelve texts in batches of mixed lengths, and the logits of a correct fake for them."""
    random = np.random.default_rng(0)
    rows = [random.integers(5, 1000, size=size).tolist() for size in (3, 9, 5, 12, 4, 30, 7, 8, 9, 3, 64, 5)]
    batches = [{"ids": part, "types": [[0] * len(row) for row in part]} for part in (rows[:1], rows[1:4], rows[4:])]
    reference = np.array([fakes.answer(row) for row in rows], dtype=np.float64)
    counted = tuple(len(batch["ids"]) for batch in batches)
    return Checks(batches=tuple(batches), counted=counted, pad=1, reference=reference, computed_by="the test")
