"""Token classifiers on CUDA: the logits of each text's own tokens, packed and padded, captured or not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fusedbert.engine.artifact import PACKED, PADDED, read_manifest, write_manifest
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import load
from fusedbert.engine.model import Model
from fusedbert.engine.text.inputs import check_items
from fusedbert.export import export_checkpoint

TEXTS = ["good", "the movie was not very good . " * 4, "bad !", "", "the movies was bad", "very " * 30] * 7


def token_logits(artifact: Path, device: str, precision: str) -> tuple[str, list[NDArray[np.float32]]]:
    """Return the layout, and the logits of the texts, of a second run: the first shapes are captured then."""
    options = Options.parse(device=device, precision=precision)
    model = Model(load(artifact, options), options)
    for texts in (TEXTS[:5], TEXTS[:5], TEXTS[:1], TEXTS):
        checked = check_items(texts)
        found = model.token_logits(checked, model.tokenize(checked).rows)
    return model.runtime.layout, found


@pytest.mark.parametrize("layout", [PACKED, PADDED])
def test_each_token_has_its_logits(
    layout: str, checkpoint_at: Callable[..., Path], stand_in_at: Callable[..., Path], tmp_path: Path, cuda: Any
) -> None:
    source, artifact = checkpoint_at(tmp_path / "source"), tmp_path / "artifact"
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["BertForTokenClassification"]}))
    export_checkpoint(source, artifact, required=False)
    stand_in_at(source, artifact)
    manifest = read_manifest(artifact)
    kept = tuple(variant for variant in manifest.variants if layout == PACKED or variant.layout == PADDED)
    write_manifest(artifact, dataclasses.replace(manifest, variants=kept))
    _, expected = token_logits(artifact, "cpu", "fp32")
    cuda()
    opened, found = token_logits(artifact, "cuda", "fp16")
    assert opened == layout
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=0.03)
