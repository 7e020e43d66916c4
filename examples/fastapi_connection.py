"""uvicorn's connection with limits for slow clients: by itself uvicorn waits without end for a request that is half sent.

uvicorn --http fastapi_connection:Connection ... (fastapi_service.py uses it when it is run by itself)
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 65_536  # bytes of the headers of one request
HEADER_SECONDS = 10.0  # that they may take to arrive
BODY_SECONDS = 20.0  # that a body may take; the application has a shorter limit, so that it can answer


class Connection(HttpToolsProtocol):
    """Closes a connection whose request does not arrive in time; on shutdown, one whose request is half sent."""

    alarm: asyncio.TimerHandle | None = None
    unread = 0  # bytes that have come since the last end of headers or of a body
    in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.allow(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self.allow(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.alarm is None:  # the first bytes of the next request
            self.allow(HEADER_SECONDS)
        self.unread += len(data)
        super().data_received(data)
        if self.unread > MAX_HEADERS and not self.in_body and not self.transport.is_closing():
            self.refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.in_body, self.unread = True, 0
        self.allow(BODY_SECONDS)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_body, self.unread = False, 0
        self.allow(None)

    def shutdown(self) -> None:
        super().shutdown()
        if self.in_body:
            self.transport.close()

    def allow(self, seconds: float | None) -> None:
        """Give the client that long for its next step; None for no limit."""
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = None if seconds is None else self.loop.call_later(seconds, self.too_late)

    def too_late(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (answering and not self.in_body):  # the client has sent the next request before this answer
            self.allow(HEADER_SECONDS)
        elif self.unread and not self.in_body:
            self.refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()
