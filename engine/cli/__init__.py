"""The command line ``fusedbert``: finds the commands of each stage and turns errors into one line.

Data goes to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong call.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from ..errors import FusedBertError, OptionError
from ..hardware.packages import version
from .process import TerminatedError, discard_stdout, open_closed_streams, refuse_closed_stdout, terminable

GROUP = "fusedbert.commands"
SUMMARIES = {
    "export": "Convert a checkpoint to an artifact: ONNX graphs with fused attention.",
    "classify": "Classify texts from the command line or stdin.",
    "rank": "Rank documents for a query, the best first.",
    "tag": "Find the entities of texts, with a token classifier.",
    "serve": "Serve models over HTTP, in the protocols of other servers.",
    "score": "Score files: csv, tsv, txt, json, jsonl or parquet.",
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

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and refuse one whose result has nowhere to go."""
        name, command, rest = super().resolve_command(ctx, args)
        refuse_closed_stdout(name or "", rest)
        return name, command, rest

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
    open_closed_streams()
    try:
        with terminable():
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
    except TerminatedError:
        status = fail("terminated", 143)
    except (BrokenPipeError, ReaderGoneError):  # the reader has gone (`| head`)
        discard_stdout()
        status = 0
    except (FusedBertError, OSError, MemoryError) as error:
        if debug:
            raise
        status = fail(_one_line(error), 2 if isinstance(error, OptionError) else 1)
        _check_stdout()
    sys.exit(status)


def _one_line(error: Exception) -> str:
    if isinstance(error, FusedBertError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # without a name it is a stream, such as a full stdout
        return f"{error.filename or 'the output'}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def _check_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def fail(message: str, status: int) -> int:
    """Print an error as one line on stderr and return its exit status."""
    with contextlib.suppress(OSError):
        click.echo(f"fusedbert: error: {' '.join(message.split())}", err=True)
    return status
