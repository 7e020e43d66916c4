"""An engine's part of the document: of its one process, or of those that run a shape each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .interleave import EngineProcess, Status

OF_SHAPE = ("status", "why", "load_seconds", "check")  # what the document has of each process


def by_engine(processes: Iterable[EngineProcess]) -> list[list[EngineProcess]]:
    """Group processes by the names of their engines, in their order."""
    groups: dict[str, list[EngineProcess]] = {}
    for process in processes:
        groups.setdefault(process.name, []).append(process)
    return list(groups.values())


def entry(processes: Sequence[EngineProcess]) -> dict[str, Any]:
    """Return an engine's part of the document, without results.

    With a process for each shape it has ``processes`` too, and counts as measured if one of them was.
    """
    parts = [process.entry() for process in processes]
    if processes[0].shape is None:
        return parts[0]
    statuses = [process.status for process in processes]
    known = next((each for each in (Status.MEASURED, Status.INTERRUPTED) if each in statuses), statuses[0])
    described = next((part for process, part in zip(processes, parts, strict=True) if process.description), parts[0])
    seconds = [part["load_seconds"] for part in parts if part["load_seconds"] is not None]
    of_shapes = [{"shape": str(process.shape), **part} for process, part in zip(processes, parts, strict=True)]
    return {
        **described,
        "status": str(known),
        "why": _reasons(of_shapes) or described["why"],
        "load_seconds": sum(seconds) if seconds else None,
        "check": _worst([part["check"] for part in parts if part["check"] is not None]),
        "processes": [{name: each[name] for name in ("shape", *OF_SHAPE)} for each in of_shapes],
    }


def not_measured(engine: Mapping[str, Any]) -> list[str]:
    """Name the shapes of a measured engine that were not, with the reasons."""
    if engine["status"] != Status.MEASURED:
        return []
    absent = [each for each in engine.get("processes", ()) if each["status"] != Status.MEASURED]
    return [f"{engine['name']} {each['shape']} {each['status']}: {each['why']}" for each in absent]


def _reasons(of_shapes: Sequence[Mapping[str, Any]]) -> str:
    """Return why shapes were not measured: once if all have the same reason, empty if all were."""
    absent = [each for each in of_shapes if each["status"] != Status.MEASURED]
    if len(absent) == len(of_shapes) and len({(each["status"], each["why"]) for each in absent}) == 1:
        return str(absent[0]["why"])
    return "; ".join(f"{each['shape']} {each['status']}: {each['why']}" for each in absent)


def _worst(checks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what several checks with the same tolerance found together; None without any."""
    if not checks:
        return None
    return {
        **checks[0],
        "texts": sum(each["texts"] for each in checks),
        "max_abs_logit": max(each["max_abs_logit"] for each in checks),
        "label_agreement": min(each["label_agreement"] for each in checks),
    }
