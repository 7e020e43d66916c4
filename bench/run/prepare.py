"""The task ``prepare``: make a contender and let it convert the checkpoint, where that was not done before."""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import Any, cast

from ..engines import Contender
from ..engines.registry import Job, make_contender
from .state import State


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Prepare.

    Args:
        state: Gets the contender.
        request: ``contender``, its name; ``job``, as ``Job.to_json`` writes it; and ``factory``, for an engine that the
            registry does not know: ``module:function``, called with the name and the job.

    Returns:
        ``seconds``, the time that it took.
    """
    state.contender = _make(request["contender"], Job.from_json(request["job"]), request.get("factory"))
    begun = perf_counter()
    state.contender.prepare()
    return {"seconds": perf_counter() - begun}


def _make(name: str, job: Job, factory: str | None) -> Contender:
    if factory is None:
        return make_contender(name, job)
    module, _, function = factory.partition(":")
    return cast(Contender, getattr(importlib.import_module(module), function)(name, job))
