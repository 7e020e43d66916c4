"""Changes of a checkpoint's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

Tensors = dict[str, np.ndarray]


def edit_config(folder: Path, **values: object) -> None:
    """Set values of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_tensors(folder: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    """Change the tensors of model.safetensors in place, or replace them by the returned ones."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors) or tensors, folder / "model.safetensors", metadata={"format": "pt"})


def widen(folder: Path, *names: str, factor: float) -> None:
    """Multiply the weights with such names: in a small random model attention is next to nothing otherwise."""
    edit_tensors(
        folder, lambda tensors: {n: a * (factor if any(name in n for name in names) else 1) for n, a in tensors.items()}
    )
