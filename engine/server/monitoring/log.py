"""The server's log on stderr: a line for each event, as text or as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
NAME = "fusedbert.engine.server"
_FIELDS = "fields"  # the attribute of a record that holds its fields


class TextFormatter(logging.Formatter):
    """``fusedbert: MESSAGE``, with the fields of a request behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        fields = getattr(record, _FIELDS, {})
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        parts = [f"fusedbert: {level}{record.getMessage()}", *(f"{name}={_shown(value)}" for name, value in fields.items())]
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        return " ".join(parts)


def _shown(value: Any) -> str:
    """Return a value in ASCII, quoted if it has spaces: what a client sends cannot begin another line."""
    text = ascii(value) if isinstance(value, str) else str(value)
    return text[1:-1] if isinstance(value, str) and " " not in text else text


class JsonFormatter(logging.Formatter):
    """An object with ``time``, ``level``, ``message``, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": now, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {"process": record.process, **getattr(record, _FIELDS, {})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII: a name in a path cannot begin another line


def set_up(form: LogFormat) -> None:
    """Send the log of the engine, and uvicorn's errors, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name, level in (("fusedbert", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_of_interest)
    warnings.showwarning = _warn


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Log a warning as one line; where it was raised is of interest only if it is not for users."""
    place = "" if category is UserWarning else f" ({category.__name__}, {filename}:{lineno})"
    event(" ".join(f"{message}{place}".split()), level=logging.WARNING)


def _of_interest(record: logging.LogRecord) -> bool:
    """Leave out answers that were not read when the server ended, for which uvicorn logs a traceback each."""
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    return not record.getMessage().rstrip().endswith("CancelledError")  # Starlette's traceback after a second signal


def event(message: str, fields: Mapping[str, Any] | None = None, level: int = logging.INFO, **keywords: Any) -> None:
    """Log a message with its fields."""
    logging.getLogger(NAME).log(level, message, extra={_FIELDS: dict(fields or {})}, **keywords)
