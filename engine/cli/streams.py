"""The engine's commands, and what they share: where messages and warnings of the library go."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import click


class _Stderr(logging.Handler):
    """Writes log records to stderr as one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"fusedbert: {record.getMessage()}", err=True)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show the library's log from level INFO on, and its warnings, as lines on stderr."""
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
