"""The worker's tasks before any measurement: prepare an engine, open its model, check its logits."""

from __future__ import annotations

import importlib
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..engines.base import Job
from ..engines.batches import pad, read_vocabulary
from ..engines.registry import make_engine
from .worker import State


def prepare(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Make an engine and let it convert the checkpoint, unless an earlier run did; return ``seconds``.

    ``request`` has its name as ``engine``; ``job``, from ``Job.to_json``; and for an engine outside the registry its
    ``factory``, ``module:function``, called with the name and the job.
    """
    name, job = request["engine"], Job.from_json(request["job"])
    module, _, function = (request.get("factory") or "").partition(":")
    state.engine = getattr(importlib.import_module(module), function)(name, job) if module else make_engine(name, job)
    begun = perf_counter()
    state.open_engine().prepare()
    return {"seconds": perf_counter() - begun}


def open_model(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Load the model into the prepared engine; return ``seconds`` and the engine's ``description``.

    ``request`` has ``tokenizer``, the folder with the ``tokenizer.json`` that random texts are drawn from.
    """
    engine = state.open_engine()
    begun = perf_counter()
    engine.load()
    seconds = perf_counter() - begun
    state.vocabulary = read_vocabulary(Path(request["tokenizer"]))
    return {"seconds": seconds, "description": dict(engine.describe())}


def check(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Return the ``logits`` of token ids, a list of rows for each batch, which the other side compares with the reference.

    ``request`` has ``batches``, each with ``ids`` and ``types``, a list for every row; and ``pad``, the id that fills up rows.

    Raises:
        ValueError: The logits do not have the shape ``[rows, labels]``.
    """
    logits = []
    for batch in request["batches"]:
        padded = pad(batch["ids"], batch["types"], request["pad"])
        found = np.asarray(state.open_engine().logits(padded))
        if found.ndim != 2 or len(found) != len(batch["ids"]):
            raise ValueError(f"logits of shape {found.shape} for {len(batch['ids'])} texts")
        logits.append(found.astype(np.float64).tolist())
    return {"logits": logits}
