"""``fusedbert bench``: measurements from the command line. Each command is imported when it is called."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "latency": ("fusedbert.bench.latency.command", "Time the graph by shape, from token ids to logits."),
    "corpus": ("fusedbert.bench.corpus.command", "Time a file of texts, from text to labels."),
    "load": ("fusedbert.bench.load.command", "Find the rate of arrivals that the latency budget allows."),
    "startup": ("fusedbert.bench.startup.command", "Time a fresh process up to its first answer; memory and size."),
    "compare": ("fusedbert.bench.report.compare", "Show what moved between two documents of --json."),
    "checkpoint": ("fusedbert.bench.cli.checkpoint", "Write a checkpoint of BERT-base's size, with random weights."),
    "setup": ("fusedbert.bench.cli.setup", "Build the environments of the engines to compare with."),
}


class BenchCommands(click.Group):
    """A click group whose commands are named here and live in a module each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[name][0]), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their summaries, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=BenchCommands)
def bench() -> None:
    """Measure how fast a model runs on this machine, alone or against other engines."""
