"""The content of ``fusedbert.json``, as dataclasses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FORMAT = 1  # of one classifier of texts
NEWEST = 2  # also of tokens, or of several heads, which the first readers would misread
TEXTS, TOKENS = "text-classification", "token-classification"
NO_MANIFEST = 0  # the format of a manifest that was derived from another tool's export
PADDED, PACKED = "padded", "packed"
WINDOW_BLOCKS, WINDOW_TEXTS = "window_blocks", "window_texts"  # inputs of a packed graph whose layers have windows
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


HEAD_NAME = "letters, digits, _, - and ., up to 100"


def is_head_name(name: object) -> bool:
    """Return whether a name fits a head: it is part of columns, keys and tensors."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """A graph's distance from the checkpoint, measured at export on check texts.

    Attributes:
        reference: Implementation it was compared with, e.g. ``numpy float64``.
        texts: Number of check texts.
        max_abs_logit: Largest absolute difference of a logit.
        label_agreement: Share of texts with the reference's label, 0 to 1.
        mean_abs_probability: Mean absolute difference of a probability.
        max_abs_probability: Largest of them.
        measured_on: ``this graph``, or the stand-in for a graph that computes otherwise where it was exported.
        scale: Unit of a logit's difference, if not 1: a tenth of the largest logit; without several labels, ``spread`` plus a
            share of the output's summands, for float32's rounding.
        spread: Largest minus smallest output. Like the rest, only of a regression or of a model with one logit.
        rank_correlation: Spearman's, with the reference's outputs; the smallest of them.
        mean_of_spread: Mean absolute change of an output, as a share of ``spread``.
        max_of_spread: Largest change, likewise.
        heads: Of an artifact with several heads, the figures of each by its name; the others are then the worst of them.
    """

    reference: str
    texts: int
    max_abs_logit: float
    label_agreement: float
    mean_abs_probability: float = 0.0
    max_abs_probability: float = 0.0
    measured_on: str = "this graph"
    scale: float | None = None
    spread: float | None = None
    rank_correlation: float | None = None
    mean_of_spread: float | None = None
    max_of_spread: float | None = None
    heads: Mapping[str, Parity] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A graph's figures on the user's own texts (``evaluate`` of an export).

    Attributes:
        texts: Name of the file that they came from.
        parity: The figures, against those of the fp32 graph.
        accuracy: Share of texts that get the label of the file, 0 to 1; None without labels.
    """

    texts: str
    parity: Parity
    accuracy: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph of the artifact.

    Attributes:
        file: Path inside the artifact, e.g. ``onnx/model.onnx``.
        target: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``int8``, ``bf16`` or ``fp16``.
        outputs: ``("logits",)`` or ``("logits", "attentions", "queries", "keys")``.
        opset: Version of the default ONNX operator set.
        nodes: Number of nodes by op type.
        fused_attention: Number of fused attention nodes.
        parity: The gate's figures.
        layout: ``padded``, inputs ``[batch, seq]``, or ``packed``, see ``engine.run.batches.pack``.
        parity_avx2: The figures of an int8 graph on an x86 processor without VNNI, where sums of two products end at 16 bits;
            None if they are not known. The file has them in a mapping next to ``variants``, by the graph's path.
        evaluation: The figures on the user's texts, None if there were none. In the file likewise.
    """

    file: str
    target: str
    precision: str
    outputs: tuple[str, ...]
    opset: int
    nodes: Mapping[str, int]
    fused_attention: int
    parity: Parity
    layout: str = PADDED
    parity_avx2: Parity | None = None
    evaluation: Evaluation | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """A text with the reference's logits, which the engine replays."""

    text: str
    logits: tuple[float, ...]
    text_pair: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of the weights: hub id or folder name, revision, SHA-256 of each weight file."""

    id: str
    revision: str | None
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier on the encoder, with fields of a manifest; its name is empty if it is the only one."""

    name: str
    problem_type: str
    labels: tuple[str, ...]
    function_to_apply: str | None = None
    activation: str | None = None  # that its config.json states for CrossEncoder; of one of several heads only
    thresholds: tuple[float, ...] | None = None
    source: Source | None = None


def columns_of(heads: Sequence[Head]) -> Iterator[tuple[Head, slice]]:
    """Yield each head with its columns of the logits."""
    start = 0
    for head in heads:
        yield head, slice(start, start + len(head.labels))
        start += len(head.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``fusedbert.json``.

    Attributes:
        source: Origin of the weights.
        created_with: Versions of the packages that made it.
        architecture: Hugging Face ``model_type``.
        problem_type: One of ``PROBLEM_TYPES``.
        labels: Names of the outputs, in their order; two may be the same.
        max_length: Maximum tokens of a text.
        variants: The graphs.
        golden: Texts with the reference's logits.
        files: ``{"bytes": size, "sha256": hash}`` of every other file, by path.
        format: Version of the manifest.
        requires: Minimum versions by graph: ``{"opset": 23, "onnxruntime": "1.23"}``; not written if empty.
        function_to_apply: ``none`` or ``sigmoid`` if ``config.json`` says so against ``problem_type``; not written if unset.
        thresholds: For a multi-label model, the least probability of each label that counts; not written if unset.
        longest: Tokens up to which ``max_length`` may be raised; not written if unset.
        heads: Several classifiers on one encoder, in the order of their logits, which are side by side; ``labels`` are then
            those of all, and ``problem_type`` the first one's. Empty for one classifier.
        task: ``text-classification``, or ``token-classification``: logits are those of each token; the first is not written.
    """

    source: Source
    created_with: Mapping[str, str]
    architecture: str
    problem_type: str
    labels: tuple[str, ...]
    max_length: int
    variants: tuple[Variant, ...]
    golden: tuple[Golden, ...] = ()
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    requires: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    function_to_apply: str | None = None
    thresholds: tuple[float, ...] | None = None
    longest: int | None = None
    task: str = TEXTS
    heads: tuple[Head, ...] = ()

    @property
    def outputs(self) -> tuple[Head, ...]:
        """The heads, also if there is only one."""
        one = Head(
            name="",
            problem_type=self.problem_type,
            labels=self.labels,
            function_to_apply=self.function_to_apply,
            thresholds=self.thresholds,
        )
        return self.heads or (one,)

    def of(self, head: Head) -> Manifest:
        """Return the manifest of one of the heads, as if it were the only one."""
        return dataclasses.replace(
            self,
            heads=(),
            golden=(),
            labels=head.labels,
            problem_type=head.problem_type,
            function_to_apply=head.function_to_apply,
            thresholds=head.thresholds,
        )

    @property
    def by_token(self) -> bool:
        """True if each token has logits, not each text."""
        return self.task == TOKENS

    @property
    def most_tokens(self) -> int:
        """The longest text that the graphs take."""
        return max(self.max_length, self.longest or 0)

    @property
    def verifiable(self) -> bool:
        """False for another tool's export, which has no hashes."""
        return self.format != NO_MANIFEST

    def variant(
        self, *, target: str, precision: str, outputs: tuple[str, ...] = ("logits",), layout: str = PADDED
    ) -> Variant | None:
        """Return the graph that has these properties, or None."""
        wanted = (target, precision, outputs, layout)
        return next((v for v in self.variants if (v.target, v.precision, v.outputs, v.layout) == wanted), None)
