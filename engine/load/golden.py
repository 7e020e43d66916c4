"""The replay of an artifact's golden texts, which verifies that a graph computes the reference's logits on this machine.

On the CPU it is done once per artifact, graph, processor and ONNX Runtime, which detects products that are wrong; on CUDA
at each load, as the driver may change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifact import MANIFEST, Manifest, Variant, columns_of
from ..artifact.limits import FP32_TOLERANCE, GOLDEN_OF_SPREAD, GOLDEN_TOLERANCE
from ..errors import ArtifactError, DeviceError
from ..hardware.cpu import Machine
from ..hardware.storage import read_cached, sha256_of, write_cached
from ..kernels import fingerprint
from ..run.runner import Runner, run
from ..text.inputs import check_items
from ..text.tokenizer import TextTokenizer
from .select import kernels_for


class WrongResultError(DeviceError):
    """A device computes the golden texts wrongly: a logit's ``difference`` (or NaN) exceeds ``allowed``."""

    def __init__(self, message: str, difference: float, allowed: float) -> None:
        super().__init__(message)
        self.difference = difference
        self.allowed = allowed


def verdict_path(root: Path, folder: Path, variant: Variant, machine: Machine, engine: str, settings: Any) -> Path | None:
    """Return the file of a graph's verdict on the CPU, or None if ``settings`` cannot be part of the key."""
    if not isinstance(settings, (Mapping, type(None))):
        return None
    facts = {
        "artifact": sha256_of(folder / MANIFEST),  # it has the hash of every graph
        "file": variant.file,
        "provider": "cpu",
        "cpu": [machine.cpu, *machine.features],
        "engine": engine,
        "kernels": fingerprint(kernels_for(variant), settings),
        "settings": sorted((str(name), str(value)) for name, value in (settings or {}).items()),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return root / "golden" / f"{key}.json"


def replay(manifest: Manifest, tokenizer: TextTokenizer, runner: Runner) -> NDArray[np.float64]:
    """Return each logit's largest difference ``[labels]``, in a batch of all texts and a single one, maybe of another graph."""
    items = [(golden.text, golden.text_pair) if golden.text_pair is not None else golden.text for golden in manifest.golden]
    # [texts, labels], or of all texts' tokens
    expected = np.concatenate([np.reshape(golden.logits, (-1, len(manifest.labels))) for golden in manifest.golden])
    # The reference's logits are those of untruncated texts, whatever max_length the caller has chosen.
    rows = dataclasses.replace(tokenizer, max_length=manifest.max_length).encode(check_items(items))
    batch, single = run(runner, rows), run(runner, rows[:1])
    if batch.shape != expected.shape:
        shapes = f"{list(batch.shape)}, the manifest's golden logits are {list(expected.shape)}"
        raise ArtifactError(f"{runner.file} gives logits {shapes}: export the checkpoint again")
    together, alone = np.abs(batch - expected).max(axis=0), np.abs(single - expected[: len(single)]).max(axis=0)
    worst: NDArray[np.float64] = np.maximum(together, alone)
    return worst


def replay_worst(manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner) -> tuple[float, float]:
    """Return the largest difference of a logit, and how far it may be off; of the head that is closest to its limit."""
    differences = replay(manifest, tokenizer, runner)  # [labels]
    found = [(differences[at].max(), allowed(variant, head.name)) for head, at in columns_of(manifest.outputs)]
    difference, limit = max(found, key=lambda each: np.inf if np.isnan(each[0]) else each[0] / each[1])
    return float(difference), limit


def allowed(variant: Variant, head: str = "") -> float:
    """Return how far a head's logit may be off: well above the largest difference that the export measured."""
    parity = (variant.parity.heads or {}).get(head, variant.parity)
    scale = 1.0 if parity.scale is None else parity.scale
    if parity.spread is None:
        least = GOLDEN_TOLERANCE.get(variant.precision, GOLDEN_TOLERANCE["fp32"]) * scale
    else:  # fp32's rounding is a share of the scale, and the spread may be far smaller
        least = GOLDEN_OF_SPREAD.get(variant.precision, GOLDEN_OF_SPREAD["fp32"]) * parity.spread + FP32_TOLERANCE * scale
    return max(least, (2 if variant.precision == "int8" else 4) * parity.max_abs_logit)


def verify(manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner, device: str) -> str:
    """Replay the golden texts, and return the result for ``runtime.why``.

    Raises:
        WrongResultError: A logit is off, or not a number.
        InferenceError: The graph failed.
    """
    if not manifest.golden:
        return "not verified (the artifact has no golden texts)"
    difference, limit = replay_worst(manifest, variant, tokenizer, runner)
    if not difference <= limit:
        message = f"a logit is off by {difference:.3g}, at most {limit:.3g} is accepted"
        raise WrongResultError(f"{device} computes the golden texts wrongly: {message}", difference, limit)
    return f"{len(manifest.golden)} golden texts within {difference:.1g} of the reference"


def verify_once(
    manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner, device: str, path: Path | None
) -> str:
    """Do as ``verify``, unless an earlier load left its verdict at ``path``. A failure is not cached.

    Raises:
        WrongResultError: A logit is off, or not a number.
        InferenceError: The graph failed.
    """
    if path is None or not manifest.golden:
        return verify(manifest, variant, tokenizer, runner, device)
    match read_cached(path):
        case {"found": str(result)}:
            return f"{result}, as verified at an earlier load on this machine"
    result = verify(manifest, variant, tokenizer, runner, device)
    write_cached(path, {"file": variant.file, "found": result})
    return result
