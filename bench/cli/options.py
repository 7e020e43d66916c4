"""Options that the commands of ``fusedbert bench`` have in common, each written once.

Example:
    >>> @click.command()
    ... @shared_options(rounds=3)
    ... def corpus(shared: Shared) -> None: ...
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.options import Options

MODEL_HELP = "Artifact, checkpoint folder or hub id; left out, the embedded default."
AGAINST_HELP = "Engines to compare with, with commas between: names and groups of `fusedbert bench setup --help`, or all."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """What a user chose, checked.

    Attributes:
        model: MODEL as given; None for the embedded default.
        checkpoint: Folder of the checkpoint for engines that need one, where MODEL is an artifact.
        against: Names and groups to compare with; empty for ours alone.
        threads: Threads of each engine; None for the cores worth using.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32``, ``int8`` or ``fp16``, ours.
        rounds: How often everything is measured; None for the command's default.
        as_json: Whether stdout gets the JSON document in place of the table.
        report: Folder for the report, or None.
    """

    model: str | None
    checkpoint: Path | None
    against: tuple[str, ...]
    threads: int | None
    device: str
    precision: str
    rounds: int | None
    as_json: bool
    report: Path | None

    def options(self) -> Options:
        """Return the engine's options.

        Raises:
            OptionError: A value is not one of its option's values.
        """
        return Options.parse(device=self.device, precision=self.precision, threads=self.threads)


def shared_options(*, rounds: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options, as one ``shared: Shared``; ``rounds`` describes the default of ``--rounds``."""
    options = (
        click.option("-m", "--model", metavar="MODEL", help=MODEL_HELP),
        click.option(
            "--checkpoint",
            metavar="FOLDER",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="The checkpoint that MODEL was exported from, for engines that convert it themselves.",
        ),
        click.option("--against", metavar="LIST", default="", help=AGAINST_HELP),
        click.option("--threads", type=click.IntRange(1), help="Threads of each engine; left out, the cores worth using."),
        click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda."),
        click.option(
            "--precision",
            default="auto",
            show_default=True,
            metavar="PRECISION",
            help="Ours: auto, fp32, int8 or fp16; auto with --against on a CPU is both fp32 and int8.",
        ),
        click.option("--rounds", type=click.IntRange(1, 1000), help=f"How often each is visited{rounds and f' ({rounds})'}."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
        click.option(
            "--report",
            metavar="FOLDER",
            type=click.Path(file_okay=False, path_type=Path),
            help="Write results.json, a page that needs nothing else, and its plots into this folder.",
        ),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            names = {field.name for field in dataclasses.fields(Shared)}
            values = {name: given.pop(name) for name in names}
            values["against"] = split_names(values["against"])
            command(shared=Shared(**values), **given)

        decorated: Callable[..., None] = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def split_names(text: str) -> tuple[str, ...]:
    """Split a list with commas; empty parts and repetitions are dropped.

    Example:
        >>> split_names("openvino, optimum-int8,,openvino")
        ('openvino', 'optimum-int8')
    """
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
