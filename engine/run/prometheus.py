"""Numbers for a monitoring system: the text that Prometheus reads, and a call after each batch for everything else.

Both are optional and need nothing installed. ``Classifier.stats`` is what they tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .counters import Batch, Observer, Stats

if TYPE_CHECKING:
    from ..classifier import Classifier

__all__ = ["CONTENT_TYPE", "Batch", "Observer", "observe", "prometheus"]

# https://prometheus.io/docs/instrumenting/exposition_formats/, the text format
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS: Mapping[str, tuple[str, Callable[[Stats], float]]] = {
    "texts_total": ("Texts and pairs that were tokenized.", lambda stats: stats.texts),
    "truncated_texts_total": ("Texts that tokens were cut off.", lambda stats: stats.truncated),
    "windowed_texts_total": ("Texts that were read in more than one window.", lambda stats: stats.windowed),
    "windows_total": ("Windows that these were read in.", lambda stats: stats.windows),
    "batches_total": ("Runs of the graph.", lambda stats: stats.batches),
    "rows_total": ("Texts and windows in these runs.", lambda stats: stats.rows),
    "tokens_total": ("Tokens of these rows, without padding.", lambda stats: stats.tokens),
    "padded_tokens_total": ("Tokens that were computed, padding included.", lambda stats: stats.padded),
}


def prometheus(classifiers: Classifier | Mapping[str, Classifier], *, prefix: str = "fusedbert") -> str:
    """Write the counts of classifiers in Prometheus' text format.

    The counts are of this process alone: where a server has several, each answers for itself.

    Args:
        classifiers: One, or several by the name that their label ``model`` gets.
        prefix: What the metrics' names begin with.

    Returns:
        The document, to be served as ``CONTENT_TYPE``.

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
        lines += _head(f"{prefix}_{metric}", meaning, "counter")
        lines += [f"{prefix}_{metric}{_labels(model=name)} {value(stats)}" for name, stats in snapshots.items()]
    metric = f"{prefix}_stage_seconds_total"
    lines += _head(metric, "Time by stage, summed over threads.", "counter")
    for name, stats in snapshots.items():
        stages = {"tokenize": stats.seconds.tokenize, "prepare": stats.seconds.prepare, "run": stats.seconds.run}
        lines += [f"{metric}{_labels(model=name, stage=stage)} {seconds:.6f}" for stage, seconds in stages.items()]
    metric = f"{prefix}_info"
    lines += _head(metric, "What runs.", "gauge")
    for name, each in named.items():
        runtime = each.runtime
        labels = _labels(model=name, device=runtime.device, precision=runtime.precision, threads=str(runtime.threads))
        lines.append(f"{metric}{labels} 1")
    return "\n".join(lines) + "\n"


def observe(classifier: Classifier, observer: Observer) -> Callable[[], None]:
    """Have a function called after each batch, with what ran: for OpenTelemetry, statsd, or a histogram of one's own.

    It is called in the thread that ran the batch, so it should be quick, and safe to call from many threads. An exception
    of its own is logged once and does no harm to predictions.

    Args:
        classifier: The classifier.
        observer: Takes a ``Batch``.

    Returns:
        A function that ends it.

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
    return classifier._counters.observe(observer)


def _head(metric: str, meaning: str, kind: str) -> list[str]:
    return [f"# HELP {metric} {meaning}", f"# TYPE {metric} {kind}"]


def _labels(**labels: str | None) -> str:
    """Write labels; a backslash, a quote and a line's end are escaped, as the format wants it."""
    given = {name: value for name, value in labels.items() if value is not None}
    if not given:
        return ""
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in given.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
