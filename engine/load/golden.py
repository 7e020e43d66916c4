"""The golden texts: replayed on this machine, they show whether a graph computes here what it should.

On the CPU that is done once for each artifact, graph, processor and version of ONNX Runtime, and remembered: a processor
whose 8-bit products saturate is found out at the first load. On CUDA it is done at each opening, as a driver may change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import MANIFEST, Manifest, Variant, sha256_of
from ..artifact.gates import FP32_TOLERANCE, GOLDEN_OF_SPREAD, GOLDEN_TOLERANCE
from ..artifact.verify import keep, kept
from ..errors import ArtifactError, DeviceError
from ..hardware.cpu import Machine
from ..kernels import fingerprint, kernels_for
from ..run.runner import Runner, run
from ..text.inputs import check_items
from ..text.tokenizer import TextTokenizer


class WrongResultError(DeviceError):
    """A device computes the golden texts wrongly.

    Attributes:
        difference: Largest difference of a logit from the reference's; nan where one is no number.
        allowed: What would have been accepted.
    """

    def __init__(self, message: str, difference: float, allowed: float) -> None:
        super().__init__(message)
        self.difference = difference
        self.allowed = allowed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Where it is remembered that a graph computes what it should, and what that depends on.

    Attributes:
        root: The cache, or None to replay anew and remember nothing.
        folder: The artifact.
        machine: The processor.
        engine: ONNX Runtime's version.
        settings: The user's session options, which may change how a graph is run.
    """

    root: Path | None
    folder: Path
    machine: Machine
    engine: str
    settings: Any = None

    def path(self, variant: Variant, provider: str) -> Path | None:
        """Return the file that says so, there or not; None where what it depends on cannot be told."""
        if self.root is None or not isinstance(self.settings, (Mapping, type(None))):
            return None
        facts = {
            "artifact": sha256_of(self.folder / MANIFEST),  # it has the hash of every graph
            "file": variant.file,
            "provider": provider,
            "cpu": [self.machine.cpu, *self.machine.features],
            "engine": self.engine,
            "kernels": fingerprint(kernels_for(variant)),
            "settings": sorted((str(name), str(value)) for name, value in (self.settings or {}).items()),
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return self.root / "golden" / f"{key}.json"


def replay(manifest: Manifest, tokenizer: TextTokenizer, runner: Runner) -> float:
    """Run the golden texts together and the first one alone; return the largest difference of a logit from the reference's.

    Both ways, because a runner may choose another graph for a batch than for a single text.
    """
    items = [(golden.text, golden.text_pair) if golden.text_pair is not None else golden.text for golden in manifest.golden]
    expected = np.array([golden.logits for golden in manifest.golden])  # [texts, labels]
    # The reference's logits are of whole texts, whatever max_length the caller has chosen for his own.
    rows = dataclasses.replace(tokenizer, max_length=manifest.max_length).encode(check_items(items))
    together, alone = run(runner, rows), run(runner, rows[:1])
    if together.shape != expected.shape:
        shapes = f"{list(together.shape)}, the manifest's golden logits are {list(expected.shape)}"
        raise ArtifactError(f"{runner.file} gives logits {shapes}: export the checkpoint again")
    return float(max(np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()))


def allowed(variant: Variant) -> float:
    """Return how far a logit may be from the reference's: well beyond what was measured at export on many more texts."""
    parity, scale = variant.parity, 1.0 if variant.parity.scale is None else variant.parity.scale
    if parity.spread is None:
        least = GOLDEN_TOLERANCE.get(variant.precision, GOLDEN_TOLERANCE["fp32"]) * scale
    else:  # what fp32 may round off is a part of the scale, and the spread may be far less
        least = GOLDEN_OF_SPREAD.get(variant.precision, GOLDEN_OF_SPREAD["fp32"]) * parity.spread + FP32_TOLERANCE * scale
    return max(least, (2 if variant.precision == "int8" else 4) * parity.max_abs_logit)


def verify(manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner, device: str) -> str:
    """Replay the golden texts on a device before it is trusted.

    Returns:
        What was found, for ``runtime.why``.

    Raises:
        WrongResultError: A logit is off, or not a number.
        InferenceError: The graph failed.
    """
    if not manifest.golden:
        return "not verified, for want of golden texts"
    difference, limit = replay(manifest, tokenizer, runner), allowed(variant)
    if not difference <= limit:
        message = f"a logit is off by {difference:.3g}, at most {limit:.3g} is accepted"
        raise WrongResultError(f"{device} computes the golden texts wrongly: {message}", difference, limit)
    return f"{len(manifest.golden)} golden texts within {difference:.1g} of the reference"


def verify_once(manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner, memory: Memory) -> str:
    """Do as ``verify`` on this CPU, unless that was done before. What fails is not remembered, and tried again.

    Raises:
        WrongResultError: As ``verify``; the message names the graph and the processor.
        InferenceError: The graph failed.
    """
    path = memory.path(variant, "cpu") if manifest.golden else None
    found = None if path is None else kept(path)
    if isinstance(found, dict) and isinstance(found.get("found"), str):
        return f"{found['found']}, seen at an earlier load on this machine"
    words = verify(manifest, variant, tokenizer, runner, f"{variant.file} on this CPU ({memory.machine.cpu})")
    if path is not None:
        keep(path, {"file": variant.file, "found": words})
    return words
