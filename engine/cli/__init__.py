"""The command line ``fusedbert``: finds the commands of each stage and turns errors into one line.

Data goes to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong call.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from ..errors import FusedBertError, OptionError
from ..hardware.packages import version

GROUP = "fusedbert.commands"
SUMMARIES = {
    "export": "Convert a checkpoint to an artifact: ONNX graphs with fused attention.",
    "classify": "Classify texts from the command line or stdin.",
    "score": "Score a file: csv, tsv, jsonl or parquet.",
    "bench": "Measure engines side by side on this machine.",
    "explain": "Write a page that shows the attention weights of a text.",
    "doctor": "Check this machine and installation, and show what the engine would choose.",
}


class ReaderGoneError(Exception):
    """Stands for BrokenPipeError inside click, which would exit with status 1."""


class LazyGroup(click.Group):
    """A group whose ``entries`` give ``module:attribute`` and the summary of each command."""

    def __init__(self, *args: Any, entries: Mapping[str, tuple[str, str]] | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.entries = dict(entries or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of the commands."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if it does not exist."""
        if cmd_name not in self.entries:
            return None
        module, _, attribute = self.entries[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def summary_of(self, name: str) -> str:
        """Return a command's summary."""
        return self.entries[name][1]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their summaries, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary_of(name)) for name in self.list_commands(ctx)])


class StageCommands(LazyGroup):
    """A click group whose commands are the entry points of ``fusedbert.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the installed commands, in the order of a user's work."""
        found = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
        return [name for name in SUMMARIES if name in found] + sorted(found - set(SUMMARIES))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, and add the option ``--debug``."""
        for entry in importlib.metadata.entry_points(group=GROUP, name=cmd_name):
            command = entry.load()
            assert isinstance(command, click.Command)
            if not any("--debug" in option.opts for option in command.params if isinstance(option, click.Option)):
                command.params.append(_debug_option())
            return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed pipe is not a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def summary_of(self, name: str) -> str:
        """Return a command's summary; empty for one of another package."""
        return SUMMARIES.get(name, "")


def _debug_option() -> click.Option:

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta["debug"] = True

    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=remember, help="Show tracebacks.")


@click.command(cls=StageCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="fusedbert")
def cli() -> None:
    """Run fine-tuned BERT classifiers fast: export them to ONNX with fused attention, classify, score, measure."""


cli.params.append(_debug_option())


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    debug = "--debug" in (sys.argv[1:] if args is None else args)
    try:
        result: Any = cli.main(args=args, prog_name="fusedbert", standalone_mode=False)
        status = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = fail("interrupted", 130)
    except (BrokenPipeError, ReaderGoneError):
        # The reader has gone (`| head`). Keep the interpreter's own flush from reporting it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (FusedBertError, OSError, MemoryError) as error:
        if debug:
            raise
        kind = "" if isinstance(error, FusedBertError) else f"{type(error).__name__}: "
        status = fail(f"{kind}{error}", 2 if isinstance(error, OptionError) else 1)
    sys.exit(status)


def fail(message: str, status: int) -> int:
    """Print an error as one line on stderr and return its exit status."""
    click.echo(f"fusedbert: error: {' '.join(message.split())}", err=True)
    return status
