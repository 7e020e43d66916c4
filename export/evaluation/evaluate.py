"""The graphs of an artifact on the user's texts: labels kept against fp32, changes of probabilities, and accuracy.

They run as the engine runs them, with its kernels, each on the device that it is for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusedbert.engine.artifact import PADDED, Evaluation, Head, Manifest, Parity, Variant, columns_of
from fusedbert.engine.artifact.limits import figures
from fusedbert.engine.errors import DeviceError, MissingDependencyError, OptionError, shown
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import load
from fusedbert.engine.model import Model
from fusedbert.engine.text.inputs import LongText, Text
from fusedbert.engine.text.outputs import Floats, Function

from ..checkpoint import ExportWarning
from ..parity.baseline import Progress
from ..parity.compare import compare, same_labels
from ..parity.heads import worst
from ..parity.reference import Float64
from ..tokenizer import Tokenization
from .texts import UserTexts

CHUNK = 1024  # texts that run between two reports
_SECONDS = 5.0  # between two reports
_REFERENCE = "this artifact's fp32 graph"


def check_labels(texts: UserTexts, labels: Sequence[str], problem_type: str) -> list[int] | None:
    """Return the id of each text's label, None if they have none; a number counts as an id if no label has that name.

    Raises:
        OptionError: A cell is not a label, or the model does not give each text one label.
    """
    if texts.labels is None:
        return None
    if problem_type != "single_label_classification" or len(labels) < 2:
        kind = "a model with one logit" if problem_type == "single_label_classification" else f"a {problem_type} model"
        raise OptionError(f"label_column is for models with one label a text, found {kind}: leave it out")
    ids = {str(i): i for i in range(len(labels))} | {name: i for i, name in reversed(list(enumerate(labels)))}
    for row, label in enumerate(texts.labels, 1):
        if label not in ids:
            known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise OptionError(
                f"{texts.name}, row {row}: the label is {shown(label)}, expected one of {known}, or its number from 0"
            )
    return [ids[label] for label in texts.labels]


def refuse_unfit(texts: UserTexts, tokens: Tokenization) -> None:
    """Raise ``OptionError`` for a text that the model cannot take, such as an empty one without [CLS]."""
    for text in texts.texts:
        if not tokens.accepts(text.plain()):
            raise OptionError(
                f"{texts.name}: the model cannot take text {text.index + 1}, it has no tokens or one unknown to it"
            )


def evaluate(folder: Path, manifest: Manifest, texts: UserTexts, progress: Progress) -> tuple[Variant, ...]:
    """Measure every graph that can run on this machine; return the variants with their figures.

    Raises:
        OptionError: A label is not one of the model's.
        InputError: The model cannot take a text.
    """
    ids = None if manifest.heads else check_labels(texts, manifest.labels, manifest.problem_type)
    found: dict[str, Evaluation] = {}
    reference: Floats | None = None
    with tempfile.TemporaryDirectory(prefix="fusedbert-") as cache:
        for variant in _fp32_first(manifest):
            logits = _logits(folder, variant, texts, Path(cache), progress)
            reference = logits if reference is None else reference
            if reference is None:  # fp32 does not run here, so that there is nothing to compare with
                break
            if logits is None:
                continue
            found[variant.file] = evaluation = measure(logits, reference, manifest.outputs, texts.name, ids)
            accuracy = "" if evaluation.accuracy is None else f", accuracy {evaluation.accuracy:.2%}"
            progress(f"{variant.file} on {texts.name}: {figures(evaluation.parity)}{accuracy}")
    return tuple(dataclasses.replace(variant, evaluation=found.get(variant.file)) for variant in manifest.variants)


def _fp32_first(manifest: Manifest) -> list[Variant]:
    """Return the graphs that give logits, a packed one aside, which runs in place of its sibling."""
    graphs = [variant for variant in manifest.variants if variant.outputs == ("logits",) and variant.layout == PADDED]
    return sorted(graphs, key=lambda variant: (variant.target, variant.precision) != ("cpu", "fp32"))


def measure(logits: Floats, reference: Floats, heads: Sequence[Head], name: str, ids: Sequence[int] | None) -> Evaluation:
    """Compare logits ``[texts, labels]`` with those of the fp32 graph, and with the ``ids`` of the right labels."""
    found = {
        head.name: _measure(logits[:, columns], reference[:, columns].astype(np.float64), head.problem_type)
        for head, columns in columns_of(heads)
    }
    parity = worst(found) if len(found) > 1 else found[heads[0].name]
    right = None if ids is None else round(float(np.mean(logits.argmax(axis=1) == np.asarray(ids))), 4)
    return Evaluation(texts=name, parity=parity, accuracy=right)


def _measure(logits: Floats, reference: Float64, problem_type: str) -> Parity:
    parity = compare(list(enumerate(logits)), reference, problem_type)
    if problem_type != "regression":  # with four digits: a thousand texts show tenths of a percent
        function = Function.choose(None, problem_type, reference.shape[1])
        kept = same_labels(logits.astype(np.float64), reference, function)
        parity = dataclasses.replace(parity, label_agreement=round(float(kept.mean()), 4))
    return dataclasses.replace(parity, reference=_REFERENCE)


def _logits(folder: Path, variant: Variant, texts: UserTexts, cache: Path, progress: Progress) -> Floats | None:
    """Run a graph as the engine does; None if this machine cannot."""
    options = Options.parse(device=variant.target, precision=variant.precision, long_text=LongText.TRUNCATE, cache_dir=cache)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = Model(load(folder, options, ignore_verdicts=True), options)
    except (DeviceError, MissingDependencyError, OptionError) as error:
        if variant.target == "cuda":
            progress(f"{variant.file} is not evaluated: it needs a GPU")
        else:
            warnings.warn(f"{variant.file} is not evaluated: {error}", ExportWarning, stacklevel=4)
        return None
    with contextlib.closing(model):
        progress(f"evaluating {variant.file} on {len(texts.texts)} texts of {texts.name}")
        return _run(model, variant.file, texts.texts, progress)


def _run(model: Model, file: str, texts: Sequence[Text], progress: Progress) -> Floats:
    parts, reported = [], time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of texts that are cut, as `fusedbert score` cuts them
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            parts.append(_token_logits(model, chunk) if model.source.manifest.by_token else model.logits(chunk))
            if time.monotonic() - reported > _SECONDS:
                progress(f"evaluating {file}: {start + len(chunk)} of {len(texts)} texts")
                reported = time.monotonic()
    return np.concatenate(parts)


def _token_logits(model: Model, texts: Sequence[Text]) -> Floats:
    return np.concatenate(model.token_logits(texts, model.tokenize(texts).rows))
