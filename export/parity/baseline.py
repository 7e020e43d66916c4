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

from fusedbert.engine.artifact import Golden, Head, columns_of
from fusedbert.engine.artifact.limits import by_order
from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.outputs import Function, apply, stated_activation, stated_function
from fusedbert.engine.text.tokenizer import Row

from ..checkpoint import Checkpoint
from ..checkpoint.architecture import Architecture, Shape, classifies_tokens, read_labels, read_problem_type
from ..checkpoint.heads import NamedHead, join
from ..checkpoint.modules import Parts
from ..checkpoint.weights import Weights
from ..tokenizer import Tokenization
from .reference import Float64, Trace, forward
from .texts import GOLDEN, MORE_PAIRS, CheckSet, check_set

Progress = Callable[[str], None]


def read_outputs(config: Mapping[str, Any], count: int, name: str = "") -> Head:
    """Read the config of a classifier with ``count`` logits; raise ``CheckpointError`` if it is not valid."""
    labels, problem_type = read_labels(config, count), read_problem_type(config)
    texts = not classifies_tokens(config)
    function = stated_function(config, problem_type, len(labels), CheckpointError) if texts else None
    # A single classifier's stays in its config.json; that of several heads can hold one for none of them.
    activation = stated_activation(config, len(labels), CheckpointError) if name else None
    return Head(
        name=name,
        labels=labels,
        problem_type=problem_type,
        function_to_apply=function,
        activation=None if activation is None else str(activation),
    )


def measured_by_order(heads: Sequence[Head]) -> bool:
    """Return whether a head is judged by the order of its outputs."""
    return any(by_order(head.problem_type, len(head.labels)) for head in heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A checkpoint, whichever route read it, and the logits that its graphs are compared with."""

    checkpoint: Checkpoint
    parts: Parts
    files: tuple[tuple[Path, ...], ...]  # of each head's weights
    architecture: Shape
    tokens: Tokenization
    outputs: tuple[Head, ...]  # one, or several in the order of their logits
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
    heads: Sequence[NamedHead], progress: Progress, *, rounded: bool, calibration: tuple[Text, ...] = ()
) -> DirectBaseline:
    """Read checkpoints of one encoder and run the reference; graphs of less than fp32 (``rounded``) need more texts.

    Raises:
        CheckpointError: It is incomplete, damaged, or not supported.
    """
    checkpoint, parts = heads[0].checkpoint, heads[0].parts
    progress(f"reading {', '.join(head.checkpoint.id for head in heads)}")
    (architecture, weights), trace = join(heads), Trace()
    refuse_other_tokenizers(heads, architecture)
    outputs = tuple(
        read_outputs(each.parts.config, head.weights.labels, each.name) for each, head in zip(heads, weights.heads, strict=True)
    )
    common = run_reference(
        lambda texts: forward(architecture, weights, texts, trace),
        checkpoint,
        parts,
        tuple(head.weights.files for head in weights.heads),
        architecture,
        outputs,
        progress,
        rounded=rounded,
        pairs=any(text.pair is not None for text in calibration) if calibration else parts.takes_pairs,
    )
    common = dataclasses.replace(common, terms=trace.terms)
    return DirectBaseline(**vars(common), weights=weights, max_activation=trace.max_activation, calibration=calibration)


def refuse_other_tokenizers(heads: Sequence[NamedHead], shape: Shape) -> None:
    """Raise ``CheckpointError`` if heads do not read a text as the same tokens."""
    facts = [tokenization(head.parts, shape).facts for head in heads] if len(heads) > 1 else []
    for head, own in zip(heads, facts, strict=False):
        different = [name for name, value in own.items() if value != facts[0][name]]
        if different:
            raise CheckpointError(
                f"head {head.name} ({head.checkpoint.folder}) has another tokenizer than head {heads[0].name}, in "
                f"{', '.join(different)}: use the same tokenizer files, or export it separately"
            )


def tokenization(parts: Parts, shape: Shape) -> Tokenization:
    """Read a checkpoint's tokenizer."""
    return Tokenization(parts.folder, shape, limit=parts.limit, lower_case=parts.lower_case)


def run_reference(
    model: Callable[[Sequence[Row]], Float64],
    checkpoint: Checkpoint,
    parts: Parts,
    files: tuple[tuple[Path, ...], ...],
    shape: Shape,
    outputs: tuple[Head, ...],
    progress: Progress,
    *,
    rounded: bool,
    pairs: bool | None = None,
) -> Baseline:
    """Run a model in float64 on the check texts and the golden texts; ``rounded`` and ``pairs`` are those of ``check_set``.

    A classifier that takes pairs, because ``pairs`` says so or it is surer of them, also runs on ``MORE_PAIRS`` if ``rounded``.
    Golden logits have six decimals, or the nine digits of a float32 if outputs have no unit.
    """
    tokens = tokenization(parts, shape)
    in_order = measured_by_order(outputs)
    both = functools.partial(check_set, shape, tokens, rounded=rounded, by_order=in_order)
    pairs = False if shape.by_token else pairs
    split_kinds = rounded and shape.token_types > 1 and not in_order and not shape.by_token
    checks, other = both(pairs=None if shape.token_types > 1 and not shape.by_token else bool(pairs)), None
    progress(f"computing the reference: {shape.layers} layers in float64, {len(checks.texts)} texts")
    shown = tuple(filter(tokens.accepts, GOLDEN))
    logits = model([*checks.texts, *tokens.encode_all(shown)])
    split = checks.starts[-1]
    reference, last = logits[:split], logits[split:]
    if split_kinds:
        kinds = {kind: _pick(checks, reference, both(pairs=kind)) for kind in (False, True)}
        if pairs is None:
            pairs = max(kinds, key=lambda kind: sureness(kinds[kind][1], outputs))
        (checks, reference), other = kinds[pairs], kinds[not pairs]
    more: Sequence[Row] = ()
    if pairs and rounded and not in_order:
        checks = checks.extended(tokens.encode_all(MORE_PAIRS))
        more = checks.texts[len(reference) :]
        progress(f"the model takes pairs: computing the reference of {len(more)} more texts")
        reference = np.concatenate([reference, model(more)])
    rows = [[float(f"{value:.9g}") for value in row] for row in last.tolist()] if in_order else last.round(6).tolist()
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


def sureness(logits: Float64, heads: Sequence[Head]) -> float:
    """Return how sure classifiers are on average: how far apart the scores of their two best labels are, or of yes and no.

    What they were trained on, single texts or pairs, they are sure of. On the other kind they have no opinion to keep.
    """
    return float(np.mean([_sureness(logits[:, columns], head.problem_type) for head, columns in columns_of(heads)]))


def _sureness(logits: Float64, problem_type: str) -> float:
    function = Function.choose(None, problem_type, logits.shape[1])
    scores = apply(function, logits)
    if function is Function.SOFTMAX:
        best = np.sort(scores, axis=1)[:, -2:]
        return float((best[:, -1] - best[:, 0]).mean())
    return float(np.abs(2 * scores - 1).mean())
