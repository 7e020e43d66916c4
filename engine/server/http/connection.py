"""uvicorn's connection with limits for slow clients: by itself uvicorn waits without end for a request that is half sent."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 65_536  # bytes of the headers of one request
GRACE = 2.0  # seconds that a body has beyond the application's own limit, which can still answer


class Connection(HttpToolsProtocol):
    """Closes a connection whose request does not arrive in time; on shutdown, one whose request is half sent.

    A process reads its limits from ``limits``, which ``limit`` sets.
    """

    limits: tuple[float, int] = (10.0, 1024)  # seconds to send headers, and to send a body; connections
    alarm: asyncio.TimerHandle | None = None
    unread = 0  # bytes that have come since the last end of headers or of a body
    in_body = False

    @classmethod
    def limit(cls, read_timeout: float, max_connections: int) -> None:
        """Set the limits of this process."""
        cls.limits = read_timeout, max_connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it time for a request, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits[1]:
            self.refuse(b"503 Service Unavailable")
        self.allow(self.limits[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self.allow(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers."""
        if self.transport.is_closing():
            return
        if self.alarm is None:  # the first bytes of the next request
            self.allow(self.limits[0])
        self.unread += len(data)
        super().data_received(data)
        if self.unread > MAX_HEADERS and not self.in_body and not self.transport.is_closing():
            self.refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """Give it time for a body."""
        super().on_headers_complete()
        self.in_body, self.unread = True, 0
        self.allow(self.limits[0] + GRACE)

    def on_message_complete(self) -> None:
        """Stop the clock: it is the server's turn."""
        super().on_message_complete()
        self.in_body, self.unread = False, 0
        self.allow(None)

    def shutdown(self) -> None:
        """Close it if its request is half sent; uvicorn closes those without one."""
        super().shutdown()
        if self.in_body:
            self.transport.close()

    def allow(self, seconds: float | None) -> None:
        """Give the client that long for its next step; None for no limit."""
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = None if seconds is None else self.loop.call_later(seconds, self.too_late)

    def too_late(self) -> None:
        """Close it, with an answer if there is a request to answer."""
        answering: Any = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (answering and not self.in_body):  # the client has sent the next request before this answer
            self.allow(self.limits[0])
        elif self.unread and not self.in_body:
            self.refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def refuse(self, status: bytes) -> None:
        """Answer with a status, and close it."""
        self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()
