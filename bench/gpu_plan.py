"""The state of one ``make gpu-check``: how large everything is, what was measured, and what was not and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import click

from fusedbert.engine.errors import FusedBertError

from .gpu_engine import GpuEngine
from .gpu_models import BASE, LARGE, TINY, ModelShape, build_artifact, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SOAK = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How large everything is: as asked for, or tiny for a dry run."""

    base: ModelShape
    large: ModelShape
    batches: tuple[int, ...]
    seconds: float
    soak: int
    texts: int
    crossover: int
    peer_shapes: tuple[tuple[int, int], ...]

    @classmethod
    def make(cls, *, dry_run: bool) -> Plan:
        """Return the sizes."""
        if dry_run:
            return cls(base=TINY, large=TINY, batches=(2,), seconds=0.1, soak=30, texts=12, crossover=4, peer_shapes=((1, 16),))
        return cls(
            base=BASE,
            large=LARGE,
            batches=(64, 128, 256, 512),
            seconds=4.0,
            soak=SOAK,
            texts=10**9,
            crossover=64,
            peer_shapes=((1, 128), (8, 128), (64, 128)),
        )


@dataclasses.dataclass(kw_only=True)
class Check:
    """The state of one go: what was measured, and what was not and why.

    Attributes:
        plan: Sizes.
        dry_run: Whether it runs on the CPU.
        folder: Where models are made.
        texts: SST-2's sentences, or made-up ones.
        deadline: When to stop beginning anything, on the monotonic clock.
        result: The figures.
        details: All else.
    """

    plan: Plan
    dry_run: bool
    folder: Path
    texts: list[str]
    deadline: float
    result: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "gpu": None,
            "driver": None,
            "onnxruntime": None,
            "bert_base": {"latency_1x128_p50_ms": None, "text_1_p50_ms": None, "seq128_per_s": None},
            "bert_large": {"seq384_per_s": None},
            "sst2": {"label_agreement": None, "packed_over_padded": None, "over_transformers_fp16": None},
            "attention_nodes_on_cuda": None,
        }
    )
    details: dict[str, Any] = dataclasses.field(default_factory=lambda: {"not_measured": {}})

    def step(self, name: str, measure: Callable[[Check], None]) -> None:
        """Run one part; what fails is noted, and the others go on."""
        if monotonic() > self.deadline:
            self.details["not_measured"][name] = "the time was up"
            return
        begun = monotonic()
        click.echo(f"gpu-check: {name}", err=True)
        try:
            measure(self)
        except FusedBertError as error:
            self.details["not_measured"][name] = str(error)
        except Exception as error:  # a peer's, or a driver's: the figures so far are worth keeping
            self.details["not_measured"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        self.details.setdefault("seconds", {})[name] = round(monotonic() - begun, 1)

    def engine(self, name: str, shape: ModelShape) -> GpuEngine:
        """Make a random model once, and open it."""
        artifact = self.folder / f"{name}-artifact"
        if not artifact.exists():
            checkpoint = write_checkpoint(self.folder / name, shape, ROOT / "models" / "sst2-mini")
            build_artifact(checkpoint, artifact, on_cpu=self.dry_run)
        return GpuEngine.open(artifact, on_cpu=self.dry_run)
