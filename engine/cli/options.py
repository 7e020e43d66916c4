"""Options and messages of several commands."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from ..text.inputs import Aggregate, LongText, Window

F = TypeVar("F", bound=Callable[..., Any])

model_option = click.option(
    "-m", "--model", metavar="MODEL", help="Artifact, checkpoint folder or hub id.  [default: the embedded model]"
)
device_option = click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
precision_option = click.option(
    "--precision", default="auto", show_default=True, metavar="P", help="auto, fp32, int8, bf16 or fp16."
)
split_special_tokens_option = click.option(
    "--split-special-tokens", is_flag=True, default=None, help="Read [SEP] in a text as text, not as the token."
)
_LONG_TEXT = (
    click.option(
        "--long-text",
        type=click.Choice([str(each) for each in LongText]),
        default=str(LongText.TRUNCATE),
        show_default=True,
        help="For texts beyond the model's length: cut them, refuse them, or read all of them in windows.",
    ),
    click.option("--stride", type=click.IntRange(min=0), metavar="N", help="With window: tokens by which neighbours overlap."),
    click.option(
        "--aggregate",
        type=click.Choice([str(each) for each in Aggregate]),
        help="With window: how logits are combined.  [default: mean]",
    ),
)


def long_text_options(command: F) -> F:
    """Add ``--long-text``, ``--stride`` and ``--aggregate`` to a command."""
    for option in reversed(_LONG_TEXT):
        command = option(command)
    return command


def read_long_text(long_text: str, stride: int | None, aggregate: str | None) -> str | Window:
    """Combine the three options into that of ``Classifier.from_pretrained``; click.UsageError if they contradict."""
    if long_text == LongText.WINDOW:
        return Window(stride=stride, aggregate=aggregate or Window().aggregate)
    if stride is not None or aggregate is not None:
        raise click.UsageError("--stride and --aggregate go with --long-text window")
    return long_text


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"fusedbert: {record.getMessage()}", err=True)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show the library's log, from INFO on, and its warnings as lines on stderr."""
    logger = logging.getLogger("fusedbert")
    handler, level = _Stderr(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"fusedbert: warning: {message}", err=True)
