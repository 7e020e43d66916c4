"""The options of the server: what a client may send, how long things may take, and who may ask."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import OptionError, check_integer, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The limits of a server; each names the answer to whoever is beyond it.

    Raises:
        OptionError: A value is out of range.
    """

    max_batch: int = 32  # texts of a request: 413
    max_documents: int = 1000  # of a request to rank: 413
    max_bytes: int = 2_000_000  # of a body: 413 as soon as it has more
    max_held: int = 64_000_000  # bytes of the bodies that are being read or wait for their answer, of all clients: 429
    max_chars: int = 100_000  # of a text, before it is tokenized: 413
    max_queue: int = 1024  # texts that wait for a model: 429
    max_tokens: int | None = None  # of a run, padding included; None for the device's optimum
    max_connections: int = 1024  # that are open at the same time: 503
    timeout: float = 10.0  # seconds that a text may wait for its run: 429
    read_timeout: float = 10.0  # seconds that headers may take, and a body: 408
    keep_alive: float = 75.0  # seconds that a connection may be idle between requests
    drain: float = 5.0  # seconds that answers under way have once the server is stopped: 503
    processes: int = 1  # of the server, which share the cores
    api_key: str | None = dataclasses.field(default=None, repr=False)  # 401 without it

    def __post_init__(self) -> None:
        counts = (
            "max_batch",
            "max_documents",
            "max_bytes",
            "max_held",
            "max_chars",
            "max_queue",
            "max_connections",
            "processes",
        )
        for name in counts:
            check_integer(name, getattr(self, name))
        check_integer("max_tokens", self.max_tokens, optional=True)
        for name in ("timeout", "read_timeout", "keep_alive", "drain"):
            _check_seconds(name, getattr(self, name))
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
            raise OptionError(
                "api_key is empty, or has characters or spaces that a header loses: give letters, digits and signs"
            )


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise OptionError(f"{name} is {shown(value)}: give seconds from 0 up")
