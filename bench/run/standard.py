"""Where the reference comes from: the checkpoint in float64, or our fp32 graph where there is no checkpoint at hand."""

from __future__ import annotations

from collections.abc import Sequence

from ..engines.registry import kind_of
from ..engines.shapes import Shape
from .interleave import Field, worker_variables
from .process import Worker
from .reference import OURS, Checks, draw, float64_reference, from_logits
from .subject import Subject


def find_reference(subject: Subject, shapes: Sequence[Shape], field: Field) -> Checks:
    """Draw the checks and compute their reference.

    Args:
        subject: The model.
        shapes: Shapes that are timed, and so checked too.
        field: For how our fp32 graph is run, where that has to be the reference.

    Raises:
        ContenderFailedError: Our fp32 graph was needed, and failed.
    """
    checks = draw(subject, shapes)
    exact = float64_reference(subject, checks)
    if exact is not None:
        return exact
    setting, patience, kind = field.setting, field.setting.patience, kind_of(OURS)
    job = {**setting.job.to_json(), "device": "cpu"}
    with Worker.start(None, worker_variables(kind, setting, field.packages)) as worker:
        worker.call("prepare", timeout=patience.prepare, contender=OURS, job=job)
        worker.call("load", timeout=patience.load, tokenizer=str(setting.job.artifact))
        found = worker.call("check", timeout=patience.check, **checks.request())
    return from_logits(found["logits"], checks)
