"""What a benchmark gives back: one JSON document for programs, a table for people. Both hold the same figures.

The document's form is named in its ``schema`` field; a change that a reader would notice raises its number.

* ``schema``: ``fusedbert.bench/2``; ``kind``: ``latency``, ``corpus``, ``load`` or ``startup``
* ``command``: what was called; ``started``: ISO 8601, UTC; ``seconds``: how long it took
* ``machine``: see ``fusedbert.bench.run.machine``; ``load_average`` holds ``before`` and ``after``
* ``model``: ``name`` and ``source`` of the artifact, its ``labels``, ``max_length`` and ``size``
* ``settings``: ``rounds``, ``seed``, ``reference`` (what the logits were held against), ``timed`` (from where to where),
  and what else the kind has
* ``ceiling``: ``gemm`` (billions of operations per second by precision), ``bandwidth_gb_s``, ``how``; None where not measured
* ``contenders``: a list of ``name``, ``title``, ``engine``, ``precision``, ``device``, ``threads``, ``versions``,
  ``status`` (``measured``, ``wrong``, ``missing``, ``failed`` or ``interrupted``), ``why`` (the reason where it is not
  measured; the engine's choice where it is), ``check`` (``texts``, ``max_abs_logit``, ``tolerance``, ``label_agreement``,
  ``reference``), ``load_seconds`` and ``results``; ``engine`` is the registry's name, its version is in ``versions``
* ``results`` of ``latency``: for each shape ``shape``, ``batch``, ``tokens``, the figures of ``Summary`` over all samples,
  ``share_of_ceiling``, and ``rounds``: the same figures with ``round``, ``warm_up``, ``others`` (share of the CPUs that
  other processes had) and ``noisy`` (why the round is in doubt, or None)
* ``corpus`` (kind ``corpus``): ``name``, ``texts``, ``tokens``, ``tokens_median``, ``tokens_most``, ``truncated`` (texts that
  are cut), ``skipped`` (rows without a usable text), ``text_column``, ``label_column``
* ``results`` of ``corpus``: one entry with ``corpus``, ``texts``, ``batch_size`` (None where the contender plans itself),
  ``tried`` (texts per second on a sample, by batch size), ``texts_per_second`` and ``tokens_per_second`` (medians over rounds),
  ``p50_ms``, ``p90_ms``, ``p99_ms`` and ``samples`` of one text at a time, ``accuracy`` (None without labels),
  ``label_agreement`` and ``max_abs_logit`` against our fp32, ``rounds`` (texts per second), and beside these lists of the same
  length: ``round_numbers`` (from 0; a slow contender sits out later ones), ``others``, ``noisy``; ``spent_s`` (all of its runs)
* a contender of ``load`` has ``capacity`` (the rate that was held, by mode), ``search`` (by mode ``rate``, ``beyond``, the
  lowest rate that was not held, and ``saturated``, answers a second while it is never idle), ``alone_ms`` (median of a text
  while nothing else runs), ``callers`` (threads that call in mode ``plain``) and ``one_caller`` (why there is one alone, or "")
* ``results`` of ``load``: for each ``mode`` (``plain``, ``batcher``) and rising ``rate``: ``achieved`` (answers a second),
  ``arrivals``, ``p50_ms``, ``p90_ms``, ``p99_ms`` (from the intended arrival), ``errors``, ``error_kinds`` (their number by
  kind), ``unfinished`` (given up after the last arrival), ``late_p99_ms`` (how late the sender itself was, part of the
  latency), ``within_budget``, ``rounds`` (p99 of each run, ms), ``others``, ``dropped`` (runs thrown away, because the rate was
  not held while other processes had the CPUs)
* ``results`` of ``startup``: one entry of medians over starts: ``interpreter_s``, ``import_s``, ``load_s``, ``first_s``,
  ``total_s``, ``peak_mb``; ``installed_mb`` (what it imported, and what that requires), ``environment_mb`` (all packages of its
  environment), ``fastest_s``, ``slowest_s``; ``rounds`` (``total_s`` of each start), ``round_numbers``, ``starts`` (the phases
  and ``peak_mb`` of each), ``others``, ``noisy``
* ``ratios``: ``ours``, ``peer``, ``shape`` (kind ``corpus``: ``corpus``; kind ``startup``: ``start``, which is ``first
  answer``; kind ``load`` has none), ``median``, ``low``, ``high``, ``pairs``, ``noisy`` (pairs in doubt): ours over the peer's
  time, so below 1 we are faster; median of the rounds' ratios with its 95 % bootstrap interval
* ``summary``: ``ours``, ``peer``, ``geometric_mean`` with ``low`` and ``high``, ``worst`` (the ratio's item, ``median``)
* ``overhead`` (``latency`` of ours on one text): see ``fusedbert.bench.latency.overhead``
* ``cautions``: what to be careful about, in words
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..run.machine import load_average, record_machine
from ..run.subject import Subject
from ..stats.comparison import name_some
from .table import format_table, milliseconds

SCHEMA = "fusedbert.bench/2"
INPUT = "random word pieces of the model's vocabulary between [CLS] and [SEP], new in every iteration, no padding"
TIMED = "from token ids in memory to logits in memory"
CROWDED = 0.5  # load average for each core, from which the machine was busy before we began


class Clock:
    """When a run began, and how busy the machine was then."""

    def __init__(self) -> None:
        self.started = datetime.datetime.now(datetime.UTC)
        self.before = load_average()

    def head(self, kind: str, subject: Subject, settings: Mapping[str, Any], command: Sequence[str] = ()) -> dict[str, Any]:
        """Return the document's first part, at the end of the run.

        Args:
            kind: The kind of benchmark.
            subject: What was measured.
            settings: How.
            command: What was called; empty for the arguments of this process.
        """
        now = datetime.datetime.now(datetime.UTC)
        return {
            "schema": SCHEMA,
            "kind": kind,
            "command": list(command) or ["fusedbert", *sys.argv[1:]],
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round((now - self.started).total_seconds(), 1),
            "machine": {**record_machine(), "load_average": {"before": self.before, "after": load_average()}},
            "model": subject.describe(),
            "settings": dict(settings),
        }


def cautions(document: Mapping[str, Any]) -> list[str]:
    """Name what a reader should be careful about."""
    found = []
    measured = [each for each in document["contenders"] if each["results"]]
    restless = [
        f"{each['name']} {entry['shape']}"
        for each in measured
        for entry in each["results"]
        if not all(visit["warm_up"]["converged"] for visit in entry["rounds"])
    ]
    if restless:
        found.append(f"Still changing when the warm-up ran out of time, so read with care: {name_some(restless)}.")
    noisy = [
        f"{each['name']} {entry['shape']} round {visit['round'] + 1} ({visit['noisy']})"
        for each in measured
        for entry in each["results"]
        for visit in entry["rounds"]
        if visit["noisy"]
    ]
    found += noisy_visits(noisy)
    above = [
        f"{each['name']} {entry['shape']} ({entry['share_of_ceiling']:.0%})"
        for each in measured
        for entry in each["results"]
        if (entry["share_of_ceiling"] or 0) > 1
    ]
    if above:
        found.append(f"Above the measured ceiling: work was left out, or the ceiling is too low: {name_some(above)}.")
    return found + busy_before(document)


def noisy_visits(names: Sequence[str]) -> list[str]:
    """Say in a line which rounds were noisy; no line where none was."""
    return [f"{len(names)} noisy rounds: {name_some(names)}."] if names else []


def noisy_rounds(document: Mapping[str, Any]) -> list[str]:
    """Say which rounds were noisy, in the kinds that have a list of reasons for each result: ``corpus`` and ``startup``."""
    return noisy_visits(
        [
            f"{each['name']} round {number + 1} ({reason})"
            for each in document["contenders"]
            for entry in each["results"]
            for number, reason in zip(entry["round_numbers"], entry["noisy"], strict=True)
            if reason
        ]
    )


def busy_before(document: Mapping[str, Any]) -> list[str]:
    """Say that the machine had other work when the run began, in a document of any kind."""
    load, cores = document["machine"]["load_average"]["before"], document["machine"]["cores"]
    if load and load[0] > CROWDED * cores:
        return [f"The machine was busy before the run: load average {load[0]:g} on {cores} cores."]
    return []


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``latency`` as text: what was measured on what, tables, what to be careful about."""
    parts = [render_head(document)]
    measured = [each for each in document["contenders"] if each["results"]]
    if len(measured) == 1 and len(document["contenders"]) == 1:
        parts.append(_alone(measured[0]))
    elif measured:
        parts.append(_side_by_side(document, measured))
        parts += [_against(document, ours) for ours in dict.fromkeys(each["ours"] for each in document["ratios"])]
    if overhead := document.get("overhead"):
        parts.append(
            f"one text of {overhead['tokens']} tokens, {overhead['contender']}: Classifier {overhead['text_us']:.0f} us, bare "
            f"session {overhead['session_us']:.0f} us, overhead {overhead['overhead_us']:.0f} us with tokenizing"
        )
    parts += [*render_absent(document), *document["cautions"]]
    return "\n\n".join(parts)


def render_head(document: Mapping[str, Any]) -> str:
    """Write what was measured on what, for any kind of document."""
    machine, model, settings = document["machine"], document["model"], document["settings"]
    quota = "no CPU quota" if machine["quota"] is None else f"CPU quota {machine['quota']:g}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load_average"]["before"]
    lines = [
        f"machine  {machine['cpu']}; {machine['cores']} cores, {quota}" + (f"; load average {load[0]:g}" if load else ""),
        f"         {versions}, Python {machine['python']}",
        f"model    {model['name']}, at most {model['max_length']} tokens",
        f"timed    {settings['timed']}; {settings['rounds']} round{'' if settings['rounds'] == 1 else 's'}",
    ]
    for gpu in machine.get("gpus", []):
        lines.insert(1, f"         {gpu['name']}, driver {gpu['driver']}")
    if ceiling := document.get("ceiling"):
        rates = ", ".join(f"{name} {rate:g} billion operations/s" for name, rate in ceiling["gemm"].items())
        memory = f"; memory {ceiling['bandwidth_gb_s']:g} GB/s" if ceiling["bandwidth_gb_s"] else ""
        lines.append(f"ceiling  {rates or ceiling['how']}{memory}")
    return "\n".join(lines)


def render_absent(document: Mapping[str, Any]) -> list[str]:
    """Name the contenders that were not measured to the end, with the reasons, for any kind of document."""
    absent = [each for each in document["contenders"] if each["status"] != "measured"]
    return ["\n".join(f"{each['name']} {each['status']}: {each['why']}" for each in absent)] if absent else []


def _alone(contender: Mapping[str, Any]) -> str:
    about = f"{contender['name']}: {contender['precision']} on {contender['device']}, {contender['threads']} threads"
    rows = [
        [
            entry["shape"],
            *(milliseconds(entry[name]) for name in ("p50_ms", "p90_ms", "p99_ms")),
            f"{entry['sequences_per_second']:.0f}",
            _percent(entry["share_of_ceiling"]),
            str(entry["samples"]),
        ]
        for entry in contender["results"]
    ]
    table = format_table(["shape", "p50 ms", "p90 ms", "p99 ms", "seq/s", "ceiling", "samples"], rows)
    return "\n".join([about, *([f"({contender['why']})"] if contender["why"] else []), "", table])


def _side_by_side(document: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    shapes = list(dict.fromkeys(entry["shape"] for each in measured for entry in each["results"]))
    rows = []
    for each in measured:
        found = {entry["shape"]: entry for entry in each["results"]}
        cells = [
            f"{milliseconds(found[shape]['p50_ms'])} {_percent(found[shape]['share_of_ceiling']):>4}" if shape in found else "-"
            for shape in shapes
        ]
        rows.append([each["name"], *cells])
    threads = document["settings"]["threads"]
    title = f"p50 in ms, and the share of the ceiling of its precision; {threads} threads each"
    return f"{title}\n\n{format_table(['', *shapes], rows)}"


def _against(document: Mapping[str, Any], ours: str) -> str:
    ratios = [each for each in document["ratios"] if each["ours"] == ours]
    shapes = list(dict.fromkeys(each["shape"] for each in ratios))
    rows = []
    for total in (each for each in document["summary"] if each["ours"] == ours):
        found = {each["shape"]: each for each in ratios if each["peer"] == total["peer"]}
        cells = [interval(found[shape], "median") if shape in found else "-" for shape in shapes]
        rows.append([total["peer"], *cells, interval(total, "geometric_mean")])
    title = f"{ours} over each peer: time ratio, median of paired rounds with its 95 % interval (below 1: {ours} is faster)"
    return f"{title}\n\n{format_table(['', *shapes, 'geometric mean'], rows)}"


def interval(entry: Mapping[str, Any], name: str) -> str:
    """Write a ratio with its interval: ``0.74 (0.72-0.77)``."""
    return f"{entry[name]:.2f} ({entry['low']:.2f}-{entry['high']:.2f})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
