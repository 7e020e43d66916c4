"""A checkpoint under export: read, understood, and with the reference's answers to the check texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Golden
from fusedbert.engine.artifact.gates import by_order
from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.outputs import stated_function

from ..checkpoint.architecture import Architecture, describe, read_config, read_labels, read_problem_type
from ..checkpoint.source import Checkpoint
from ..checkpoint.weights import Weights
from ..tokenizer.tokenization import Tokenization
from .gates import CheckSet, check_set
from .order import golden_texts
from .reference import Trace, forward
from .texts import GOLDEN

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What every graph of an export is made from and held against.

    Attributes:
        checkpoint: Where it lies.
        architecture: Its description.
        weights: Its tensors.
        tokens: Its tokenizer.
        labels: Names of the classifier's outputs.
        problem_type: What the outputs mean.
        function_to_apply: What makes scores of them, where the checkpoint says otherwise than its problem type does.
        checks: The check texts.
        reference: Their logits, float64 ``[texts, labels]``.
        max_activation: Largest absolute value that the reference saw on the way there.
        golden: Texts for the manifest, with their logits.
        calibration: Texts of the user's own to fit int8 to; none: the built-in ones.
        terms: Of each logit the largest sum of its products without their signs ``[labels]``, as the reference saw them.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    weights: Weights
    tokens: Tokenization
    labels: tuple[str, ...]
    problem_type: str
    checks: CheckSet
    reference: NDArray[np.float64]
    max_activation: float
    golden: tuple[Golden, ...]
    calibration: tuple[str, ...] = ()
    terms: NDArray[np.float64] | None = None
    function_to_apply: str | None = None

    def in_float32(self) -> NDArray[np.floating]:
        """Compute the reference in float32: ``[texts, labels]``."""
        return forward(self.architecture, self.weights, self.checks.texts, None, np.float32)


def study(checkpoint: Checkpoint, tell: Progress, *, rounded: bool, calibration: tuple[str, ...] = ()) -> Subject:
    """Read a checkpoint and compute what the reference makes of the check texts.

    Args:
        checkpoint: Where it lies.
        tell: Called with each step's name as it begins.
        rounded: Whether a graph of less than fp32 will be held against it, which takes more texts to judge.
        calibration: Texts to fit int8 to, in place of the built-in ones.

    Raises:
        CheckpointError: It is incomplete, damaged, or of a kind that is not built.
    """
    tell(f"reading {checkpoint.id}")
    config = read_config(checkpoint.folder)
    architecture, layout = describe(config)
    weights = Weights(checkpoint.folder, architecture, layout)
    labels, problem_type = read_labels(config, weights.labels), read_problem_type(config)
    function = stated_function(config, problem_type, len(labels), CheckpointError)
    tokens = Tokenization(checkpoint.folder, architecture)
    checks = check_set(architecture, tokens, rounded=rounded, pairs=by_order(problem_type, len(labels)))
    tell(f"computing the reference: {architecture.layers} layers in float64, {len(checks.texts)} texts")
    trace = Trace()
    shown = tuple(filter(tokens.takes, GOLDEN))
    logits = forward(architecture, weights, [*checks.texts, *tokens.encode_all(shown)], trace)
    split = len(checks.texts)
    return Subject(
        checkpoint=checkpoint,
        architecture=architecture,
        weights=weights,
        tokens=tokens,
        labels=labels,
        problem_type=problem_type,
        checks=checks,
        reference=logits[:split],
        max_activation=trace.max_activation,
        golden=golden_texts(shown, logits[split:], problem_type),
        calibration=calibration,
        terms=trace.terms,
        function_to_apply=function,
    )
