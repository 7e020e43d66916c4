"""Baseline: a checkpoint under export, with the reference's logits of the check texts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Golden
from fusedbert.engine.artifact.limits import by_order
from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.outputs import Function, apply, stated_function
from fusedbert.engine.text.tokenizer import Row

from ..checkpoint import Checkpoint
from ..checkpoint.architecture import Architecture, Shape, classifies_tokens, read_labels, read_problem_type
from ..checkpoint.modules import Parts, read_parts
from ..checkpoint.weights import Weights
from ..tokenizer import Tokenization
from .reference import Float64, Trace, forward
from .texts import GOLDEN, MORE_PAIRS, CheckSet, check_set

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs of a classifier; ``function_to_apply`` is None if the problem type implies the function of the scores."""

    labels: tuple[str, ...]
    problem_type: str
    function_to_apply: str | None

    @classmethod
    def read(cls, config: Mapping[str, Any], count: int) -> Outputs:
        """Read the config of a classifier with ``count`` logits; raise ``CheckpointError`` if it is not valid."""
        labels, problem_type = read_labels(config, count), read_problem_type(config)
        texts = not classifies_tokens(config)
        function = stated_function(config, problem_type, len(labels), CheckpointError) if texts else None
        return cls(labels=labels, problem_type=problem_type, function_to_apply=function)

    @property
    def by_order(self) -> bool:
        """True if a graph is judged by the order of its outputs."""
        return by_order(self.problem_type, len(self.labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A checkpoint, whichever route read it, and the logits that its graphs are compared with."""

    checkpoint: Checkpoint
    parts: Parts
    files: tuple[Path, ...]  # of the weights
    architecture: Shape
    tokens: Tokenization
    outputs: Outputs
    checks: CheckSet
    reference: Float64  # logits of the check texts ``[texts, labels]``
    golden: tuple[Golden, ...]  # texts for the manifest, with their logits
    other: tuple[CheckSet, Float64] | None = None  # check texts of the kind, single or pairs, that it is less sure of
    more: int = 0  # how many of the check texts, at the end, are ``MORE_PAIRS``
    terms: Float64 | None = None  # largest sum of each logit's products without signs ``[labels]``; None if not known

    def in_float32(self) -> NDArray[np.floating] | None:
        """Compute the reference in float32, ``[texts, labels]``; None if the route cannot."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectBaseline(Baseline):
    """The baseline of the direct route, with the reference's largest activation, and the user's calibration texts."""

    architecture: Architecture
    weights: Weights
    max_activation: float
    calibration: tuple[Text, ...] = ()

    def in_float32(self) -> NDArray[np.floating]:
        """Compute the reference in float32, ``[texts, labels]``."""
        return forward(self.architecture, self.weights, self.checks.texts, None, np.float32)


def compute_baseline(
    checkpoint: Checkpoint, progress: Progress, *, rounded: bool, calibration: tuple[Text, ...] = ()
) -> DirectBaseline:
    """Read a checkpoint and run the reference; graphs of less than fp32 (``rounded``) need more texts.

    Raises:
        CheckpointError: It is incomplete, damaged, or not supported.
    """
    progress(f"reading {checkpoint.id}")
    parts = read_parts(checkpoint.folder)
    architecture, layout = parts.describe()
    weights, trace = parts.weights(architecture, layout), Trace()
    common = run_reference(
        lambda texts: forward(architecture, weights, texts, trace),
        checkpoint,
        parts,
        weights.files,
        architecture,
        Outputs.read(parts.config, weights.labels),
        progress,
        rounded=rounded,
        pairs=any(text.pair is not None for text in calibration) if calibration else parts.takes_pairs,
    )
    common = dataclasses.replace(common, terms=trace.terms)
    return DirectBaseline(**vars(common), weights=weights, max_activation=trace.max_activation, calibration=calibration)


def run_reference(
    model: Callable[[Sequence[Row]], Float64],
    checkpoint: Checkpoint,
    parts: Parts,
    files: tuple[Path, ...],
    shape: Shape,
    outputs: Outputs,
    progress: Progress,
    *,
    rounded: bool,
    pairs: bool | None = None,
) -> Baseline:
    """Run a model in float64 on the check texts and the golden texts; ``rounded`` and ``pairs`` are those of ``check_set``.

    A classifier that takes pairs, because ``pairs`` says so or it is surer of them, also runs on ``MORE_PAIRS`` if ``rounded``.
    Golden logits have six decimals, or the nine digits of a float32 if outputs have no unit.
    """
    tokens = Tokenization(parts.folder, shape, limit=parts.limit, lower_case=parts.lower_case)
    both = functools.partial(check_set, shape, tokens, rounded=rounded, by_order=outputs.by_order)
    pairs = False if shape.by_token else pairs
    split_kinds = rounded and shape.token_types > 1 and not outputs.by_order and not shape.by_token
    checks, other = both(pairs=None if shape.token_types > 1 and not shape.by_token else bool(pairs)), None
    progress(f"computing the reference: {shape.layers} layers in float64, {len(checks.texts)} texts")
    shown = tuple(filter(tokens.accepts, GOLDEN))
    logits = model([*checks.texts, *tokens.encode_all(shown)])
    split = checks.starts[-1]
    reference, last = logits[:split], logits[split:]
    if split_kinds:
        kinds = {kind: _pick(checks, reference, both(pairs=kind)) for kind in (False, True)}
        if pairs is None:
            pairs = max(kinds, key=lambda kind: sureness(kinds[kind][1], outputs.problem_type))
        (checks, reference), other = kinds[pairs], kinds[not pairs]
    more: Sequence[Row] = ()
    if pairs and rounded and not outputs.by_order:
        checks = checks.extended(tokens.encode_all(MORE_PAIRS))
        more = checks.texts[len(reference) :]
        progress(f"the model takes pairs: computing the reference of {len(more)} more texts")
        reference = np.concatenate([reference, model(more)])
    rows = [[float(f"{value:.9g}") for value in row] for row in last.tolist()] if outputs.by_order else last.round(6).tolist()
    return Baseline(
        checkpoint=checkpoint,
        parts=parts,
        files=files,
        architecture=shape,
        tokens=tokens,
        outputs=outputs,
        checks=checks,
        reference=reference,
        other=other,
        more=len(more),
        golden=_golden(shown, rows, [len(row.ids) for row in tokens.encode_all(shown)] if shape.by_token else [1] * len(shown)),
    )


def _golden(texts: Sequence[str], rows: Sequence[Sequence[float]], counts: Sequence[int]) -> tuple[Golden, ...]:
    """Give each text its ``counts`` of rows of logits, one behind the other."""
    left = iter(rows)
    parts = ([value for row in itertools.islice(left, count) for value in row] for count in counts)
    return tuple(Golden(text=text, logits=tuple(part)) for text, part in zip(texts, parts, strict=True))


def _pick(checks: CheckSet, reference: Float64, part: CheckSet) -> tuple[CheckSet, Float64]:
    """Return a part of the check texts with its rows of the reference."""
    row = {(tuple(text.ids), tuple(text.types)): i for i, text in enumerate(checks.texts)}
    return part, reference[[row[tuple(text.ids), tuple(text.types)] for text in part.texts]]


def sureness(logits: Float64, problem_type: str) -> float:
    """Return how sure a classifier is on average: how far apart the scores of its two best labels are, or of yes and no.

    What it was trained on, single texts or pairs, it is sure of. On the other kind it has no opinion that could be kept.
    """
    function = Function.choose(None, problem_type, logits.shape[1])
    scores = apply(function, logits)
    if function is Function.SOFTMAX:
        best = np.sort(scores, axis=1)[:, -2:]
        return float((best[:, -1] - best[:, 0]).mean())
    return float(np.abs(2 * scores - 1).mean())
