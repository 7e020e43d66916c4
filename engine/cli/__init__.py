"""The root of the command line, ``fusedbert``: finds the commands of each stage and turns errors into one line.

Data goes to stdout, everything else to stderr. Exit status 0: done; 2: the call is wrong; 1: it could not be done.
A stage registers its commands as entry points of the group ``fusedbert.commands``; a command is imported when it is
called, so that ``fusedbert classify`` does not pay for the exporter.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any, NoReturn

import click

from ..errors import FusedBertError, OptionError

GROUP = "fusedbert.commands"
SUMMARIES = {
    "export": "Convert a checkpoint to an artifact: ONNX graphs with fused attention.",
    "classify": "Classify texts from the command line or stdin.",
    "score": "Score a file: csv, tsv, jsonl or parquet.",
    "bench": "Measure engines side by side on this machine.",
    "explain": "Write a page that shows the attention weights of a text.",
    "doctor": "Show what this machine offers and what the engine would choose.",
}


class ReaderGoneError(Exception):
    """Stands in for BrokenPipeError on its way through click, which would leave the process with status 1."""


class StageCommands(click.Group):
    """A click group whose commands are the entry points of ``fusedbert.commands``, each loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the installed commands, in the order of a user's work."""
        found = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
        return [name for name in SUMMARIES if name in found] + sorted(found - set(SUMMARIES))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        for entry in importlib.metadata.entry_points(group=GROUP, name=name):
            command = entry.load()
            assert isinstance(command, click.Command)
            if not any("--debug" in option.opts for option in command.params if isinstance(option, click.Option)):
                command.params.append(_debug_option())
            return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their summaries, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES.get(name, "")) for name in self.list_commands(ctx)])


def _debug_option() -> click.Option:
    """Make ``--debug``, which every command takes before or after its name."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta["debug"] = True

    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=remember, help="Show tracebacks.")


def _version() -> str:
    try:
        return importlib.metadata.version("fusedbert")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@click.command(cls=StageCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="fusedbert")
def cli() -> None:
    """Run fine-tuned BERT classifiers fast: export them to ONNX with fused attention, classify, score, measure."""


cli.params.append(_debug_option())


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit status."""
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
        # The reader went away (`| head`): no one is left to tell. Keep the interpreter's own flush from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except FusedBertError as error:
        if debug:
            raise
        status = fail(str(error), 2 if isinstance(error, OptionError) else 1)
    except (OSError, MemoryError) as error:
        if debug:
            raise
        status = fail(f"{type(error).__name__}: {error}", 1)
    sys.exit(status)


def fail(message: str, status: int) -> int:
    """Print an error as one line on stderr and return the exit status that goes with it."""
    line = " ".join(message.split())
    click.echo(f"fusedbert: error: {line}", err=True)
    return status
