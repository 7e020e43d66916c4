"""The processes of one server, which give each other their numbers, so that any of them can answer for all.

Each listens on a socket in a folder that the parent has made; a process that does not answer soon is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from .metrics import join

_PATIENCE = 1.0  # seconds


class Siblings:
    """This process among those of the server; ``text`` gives its own numbers."""

    def __init__(self, folder: str | None, text: Callable[[], str]) -> None:
        self._folder, self._text = Path(folder) if folder else None, text
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen for the others."""
        if self._folder is not None:
            self._server = await asyncio.start_unix_server(self._answer, self._own(self._folder))

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._folder is not None:
            self._server.close()
            self._own(self._folder).unlink(missing_ok=True)

    async def metrics(self) -> str:
        """Return the numbers of all processes, each sample with its process; of a single one as they are."""
        if self._folder is None:
            return self._text()
        others = sorted(path for path in self._folder.glob("*.sock") if path != self._own(self._folder))
        texts = await asyncio.gather(*map(_ask, others))
        found = [(path.stem, text) for path, text in zip(others, texts, strict=True) if text]
        return join(sorted([*found, (str(os.getpid()), self._text())]))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._text().encode())
        writer.write_eof()
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    @staticmethod
    def _own(folder: Path) -> Path:
        return folder / f"{os.getpid()}.sock"


async def _ask(path: Path) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)  # its process has ended
        return ""
    except (OSError, TimeoutError):
        return ""
