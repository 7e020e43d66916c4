"""Metrics for monitoring: Prometheus' text format, and a callback after each batch. Neither needs another package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .counters import Batch, Observer, Stats

if TYPE_CHECKING:
    from ..tasks.loaded import Loaded

__all__ = ["CONTENT_TYPE", "Batch", "Observer", "head", "labels", "observe", "prometheus"]

# https://prometheus.io/docs/instrumenting/exposition_formats/, the text format
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS: Mapping[str, tuple[str, Callable[[Stats], float]]] = {
    "texts_total": ("Texts and pairs that were tokenized.", lambda stats: stats.texts),
    "truncated_texts_total": ("Texts that were truncated.", lambda stats: stats.truncated),
    "windowed_texts_total": ("Texts that were read in more than one window.", lambda stats: stats.windowed),
    "windows_total": ("Windows of these texts.", lambda stats: stats.windows),
    "batches_total": ("Runs of the graph.", lambda stats: stats.batches),
    "rows_total": ("Texts and windows in these runs.", lambda stats: stats.rows),
    "tokens_total": ("Tokens of these rows, without padding.", lambda stats: stats.tokens),
    "padded_tokens_total": ("Tokens that were computed, padding included.", lambda stats: stats.padded),
}


def prometheus(classifiers: Loaded | Mapping[str, Loaded], *, prefix: str = "fusedbert") -> str:
    """Return this process's counts in Prometheus' text format, to be served as ``CONTENT_TYPE``.

    Args:
        classifiers: One, or several by the value of their label ``model``.
        prefix: Prefix of the metrics' names.

    Example:
        >>> clf = Classifier.from_pretrained()
        >>> clf.predict(["fine", "awful"])
        ['POSITIVE', 'NEGATIVE']
        >>> print(prometheus(clf))
        # HELP fusedbert_texts_total Texts and pairs that were tokenized.
        # TYPE fusedbert_texts_total counter
        fusedbert_texts_total 2
        ...
    """
    named = dict(classifiers) if isinstance(classifiers, Mapping) else {None: classifiers}
    snapshots = {name: each.stats for name, each in named.items()}
    lines: list[str] = []
    for metric, (meaning, value) in _COUNTERS.items():
        lines += head(f"{prefix}_{metric}", meaning, "counter")
        lines += [f"{prefix}_{metric}{labels(model=name)} {value(stats)}" for name, stats in snapshots.items()]
    metric = f"{prefix}_stage_seconds_total"
    lines += head(metric, "Time per stage, summed over threads.", "counter")
    for name, stats in snapshots.items():
        stages = dataclasses.asdict(stats.seconds).items()
        lines += [f"{metric}{labels(model=name, stage=stage)} {seconds:.6f}" for stage, seconds in stages]
    metric = f"{prefix}_info"
    lines += head(metric, "Device, precision and threads of the model.", "gauge")
    for name, each in named.items():
        runtime = each.runtime
        about = labels(model=name, device=runtime.device, precision=runtime.precision, threads=str(runtime.threads))
        lines.append(f"{metric}{about} 1")
    return "\n".join(lines) + "\n"


def observe(classifier: Loaded, observer: Observer) -> Callable[[], None]:
    """Register a callback after each batch, for OpenTelemetry, statsd or a histogram.

    It runs in the batch's thread, so it must be fast and thread-safe. Its first error is logged, and none affects predictions.

    Args:
        classifier: The classifier.
        observer: A function of a ``Batch``.

    Returns:
        A function that unregisters it.

    Example:
        With OpenTelemetry: ``observe(clf, lambda batch: histogram.record(batch.run_seconds, {"model": "reviews"}))``,
        where ``histogram`` is ``meter.create_histogram("fusedbert.run", unit="s")``.

        >>> clf = Classifier.from_pretrained()
        >>> seen = []
        >>> forget = observe(clf, seen.append)
        >>> clf.predict(["fine", "awful"])
        ['POSITIVE', 'NEGATIVE']
        >>> seen[0].rows, seen[0].tokens, seen[0].padded
        (2, 6, 6)
        >>> forget()
    """
    return classifier.model.counters.observe(observer)


def head(metric: str, meaning: str, kind: str) -> list[str]:
    """Return the comments before a metric."""
    return [f"# HELP {metric} {meaning}", f"# TYPE {metric} {kind}"]


def labels(**labels: str | None) -> str:
    """Format the labels that are not None, with backslashes, quotes and line ends escaped."""
    escaped = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    texts = [f'{name}="{value.translate(escaped)}"' for name, value in labels.items() if value is not None]
    return "{" + ",".join(texts) + "}" if texts else ""
