"""The golden texts: replayed on this machine, they show whether a graph computes here what it should."""

from __future__ import annotations

import numpy as np

from fusedbert.engine.artifact import Manifest, Variant
from fusedbert.engine.errors import DeviceError
from fusedbert.engine.inputs import check_items
from fusedbert.engine.runner import Runner, run
from fusedbert.engine.tokenizer import TextTokenizer

# What a GPU's order of additions may change beyond what was measured at export; a wrong kernel is off by whole units.
TOLERANCE = {"fp16": 0.05, "fp32": 1e-3}


def replay(manifest: Manifest, tokenizer: TextTokenizer, runner: Runner) -> float:
    """Run the golden texts together and the first one alone; return the largest difference of a logit from the reference's.

    Both ways, because a runner may choose another graph for a batch than for a single text.
    """
    items = [(golden.text, golden.text_pair) if golden.text_pair is not None else golden.text for golden in manifest.golden]
    expected = np.array([golden.logits for golden in manifest.golden])  # [texts, labels]
    rows = tokenizer.encode(check_items(items))
    together, alone = run(runner, rows), run(runner, rows[:1])
    return float(max(np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()))


def verify(manifest: Manifest, variant: Variant, tokenizer: TextTokenizer, runner: Runner, device: str) -> str:
    """Replay the golden texts on a device before it is trusted.

    Returns:
        What was found, for ``runtime.why``.

    Raises:
        DeviceError: A logit is off, or not a number.
        InferenceError: The graph failed.
    """
    if not manifest.golden or tokenizer.max_length < manifest.max_length:
        return (
            "not verified, for want of golden texts"
            if not manifest.golden
            else "not verified, as max_length cuts the golden texts"
        )
    difference = replay(manifest, tokenizer, runner)
    allowed = max(TOLERANCE.get(variant.precision, TOLERANCE["fp32"]), 4 * variant.parity.max_abs_logit)
    if not difference <= allowed:
        raise DeviceError(
            f"{device} computes the golden texts wrongly: a logit is off by {difference:.3g}, at most {allowed:.3g} is accepted"
        )
    return f"{len(manifest.golden)} golden texts within {difference:.1g} of the reference"
