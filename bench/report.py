"""What a latency benchmark gives back: one JSON document for programs, a table for people. Both hold the same figures.

The document's form is named in its ``schema`` field; a change that a reader would notice raises its number.

* ``schema``: ``fusedbert.bench.latency/1``
* ``started``: ISO 8601, UTC
* ``machine``: see ``fusedbert.bench.machine``; ``load_average`` holds ``before`` and ``after``
* ``model``: ``name`` and ``source`` of the artifact, its ``labels`` and ``max_length``
* ``settings``: ``rounds``, ``seed``, ``input`` (what was fed), ``timed`` (from where to where)
* ``contenders``: a list of ``name``, the entries of ``describe()``, and ``results``: for each shape ``shape``, ``batch``,
  ``tokens``, the figures of ``Summary`` over all samples, and ``rounds``, the same for each by itself with its ``warm_up``
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fusedbert.bench.latency import ShapeLatency
from fusedbert.bench.table import format_table, milliseconds

SCHEMA = "fusedbert.bench.latency/1"
INPUT = "random word pieces of the model's vocabulary between [CLS] and [SEP], new in every iteration, no padding"
TIMED = "from token ids in memory to logits in memory"


def contender_entry(name: str, description: Mapping[str, Any], results: Sequence[ShapeLatency]) -> dict[str, Any]:
    """Return a contender's part of the document."""
    return {"name": name, **description, "results": [_result(entry) for entry in results]}


def _result(entry: ShapeLatency) -> dict[str, Any]:
    return {
        "shape": str(entry.shape),
        **dataclasses.asdict(entry.shape),
        **dataclasses.asdict(entry.summary),
        "rounds": [
            {**dataclasses.asdict(visit.summary), "warm_up": dataclasses.asdict(visit.warm_up)} for visit in entry.rounds
        ],
    }


def render(document: Mapping[str, Any]) -> str:
    """Write a document as text: what was measured on what, then a table, then what to be careful about."""
    machine, model, settings = document["machine"], document["model"], document["settings"]
    quota = "no CPU quota" if machine["quota"] is None else f"CPU quota {machine['quota']:g}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load_average"]["before"]
    lines = [
        f"machine  {machine['cpu']}; {machine['cores']} cores, {quota}" + (f"; load average {load[0]:g}" if load else ""),
        f"         {versions}, Python {machine['python']}",
        f"model    {model['name']}, at most {model['max_length']} tokens",
        f"timed    {settings['timed']}; {settings['rounds']} rounds",
    ]
    for contender in document["contenders"]:
        lines += ["", f"{contender['name']}: {contender['precision']} on {contender['device']}, {contender['threads']} threads"]
        lines += [f"({contender['why']})", "", _table(contender["results"]), *_cautions(contender["results"])]
    return "\n".join(lines)


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            entry["shape"],
            *(milliseconds(entry[name]) for name in ("p50_ms", "p90_ms", "p99_ms")),
            f"{entry['sequences_per_second']:.0f}",
            str(entry["samples"]),
        ]
        for entry in results
    ]
    return format_table(["shape", "p50 ms", "p90 ms", "p99 ms", "seq/s", "samples"], rows)


def _cautions(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the shapes whose times never held still before they were measured."""
    restless = [entry["shape"] for entry in results if not all(visit["warm_up"]["converged"] for visit in entry["rounds"])]
    if not restless:
        return []
    return ["", f"Still changing when the warm-up ran out of time, so read with care: {', '.join(restless)}."]
