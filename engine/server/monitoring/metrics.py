"""Numbers for monitoring, in Prometheus' text format: of requests, queues and models, of all processes of a server.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable

from ...run.prometheus import head, labels, prometheus
from ..batcher import BatcherStats
from ..models import Models

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds, of the histograms
_GAUGES = ("waiting", "running")
_MEANINGS = {
    "submitted": "Texts that entered the queue.",
    "answered": "Texts with a result.",
    "failed": "Texts with an error.",
    "refused": "Texts that found the queue full.",
    "expired": "Texts that waited too long.",
    "cancelled": "Texts whose client had gone, or that came with one that failed.",
    "batches": "Runs of the graph.",
    "waiting": "Texts in the queue now.",
    "running": "Texts that are run now.",
}


class Meter:
    """Counts requests by path and status, and their times by path; a path that is not ``known`` is "other"."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self.requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self.running = 0

    def count(self, path: str, status: int, seconds: float) -> None:
        """Add a request."""
        path = path if path in self._known else "other"  # a label has few values, whatever clients ask for
        self.requests[path, status] += 1
        buckets = self._buckets.setdefault(path, [0] * (len(BUCKETS) + 1))
        buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._seconds[path] += seconds  # type: ignore[assignment]

    def text(self) -> str:
        """Return the counts in Prometheus' text format."""
        lines = head("http_requests_total", "Requests by path and status.", "counter")
        for (path, status), number in self.requests.items():
            lines.append(f'http_requests_total{{path="{path}",status="{status}"}} {number}')
        name = "http_request_duration_seconds"
        lines += head(name, "Time of a request, from its headers to its answer.", "histogram")
        for path, buckets in self._buckets.items():
            total = 0
            for limit, number in zip((*map(str, BUCKETS), "+Inf"), buckets, strict=True):
                total += number
                lines.append(f'{name}_bucket{{path="{path}",le="{limit}"}} {total}')
            lines.append(f'{name}_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'{name}_count{{path="{path}"}} {total}')
        lines += head("http_requests_running", "Requests that are being answered now.", "gauge")
        return "\n".join([*lines, f"http_requests_running {self.running}", ""])


def process_metrics(models: Models, meter: Meter) -> str:
    """Return the numbers of this process."""
    stats = {name: each.batcher.stats for name, each in models.served.items()}
    whole = {name: each.clf for name, each in models.served.items() if ":" not in name}
    return prometheus(whole) + _queues(stats) + meter.text()


def _queues(stats: dict[str, BatcherStats]) -> str:
    lines: list[str] = []
    for field in dataclasses.fields(BatcherStats):
        gauge = field.name in _GAUGES
        metric = f"fusedbert_batcher_{field.name}" + ("" if gauge else "_total")
        lines += head(metric, _MEANINGS[field.name], "gauge" if gauge else "counter")
        lines += [f"{metric}{labels(model=name)} {getattr(each, field.name)}" for name, each in stats.items()]
    return "\n".join([*lines, ""])


def join(texts: Iterable[tuple[str, str]]) -> str:
    r"""Join the texts of several processes; each sample gets a label with its process, and each metric stands once.

    Example:
        >>> print(join([("7", "# TYPE a counter\na 1\n"), ("8", '# TYPE a counter\na{b="c"} 2\n')]))
        # TYPE a counter
        a{process="7"} 1
        a{process="8",b="c"} 2
        <BLANKLINE>
    """
    comments: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts:
        metric = ""
        for line in text.splitlines():
            if line.startswith("#"):
                metric = line.split(" ", 3)[2]
                lines = comments.setdefault(metric, [])
                if line not in lines:
                    lines.append(line)
            elif line:
                samples.setdefault(metric, []).append(_labelled(line, process))
    return "\n".join([line for name, lines in comments.items() for line in (*lines, *samples.get(name, []))] + [""])


def _labelled(line: str, process: str) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{process="{process}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{process="{process}"}} {value}'
