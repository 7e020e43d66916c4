"""uvicorn's connection with limits: by itself it waits without end for slow clients, and queues all that one sends at once."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 65_536  # bytes of the headers of one request
GRACE = 2.0  # seconds that a body has beyond the application's own limit, which can still answer
MAX_WAITING = 32  # requests that one connection may send ahead, before it has the answers to earlier ones


class Connection(HttpToolsProtocol):
    """Closes a connection whose client is slow to send or to read, or sends too much ahead; on shutdown, one half sent.

    A process reads its limits from ``limits``, which ``limit`` sets.
    """

    limits: tuple[float, int] = (10.0, 1024)  # seconds to send headers, and to send a body; connections
    alarm: asyncio.TimerHandle | None = None
    unread = 0  # bytes that have come since the last end of headers or of a body, or since a part of a body
    in_body = False
    last = False  # no request may follow
    running: Any = None  # whose answer is due; uvicorn's ``cycle`` is of the request that came last
    unwritten: asyncio.TimerHandle | None = None  # the clock of a client that does not read

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
        """Stop the clocks, and end the request that is being answered."""
        self.allow(None)
        if self.timeout_keep_alive_task is not None:  # uvicorn leaves it after a reset, and it would hold all of this
            self.timeout_keep_alive_task.cancel()
        self._wait_for_reader(None)
        self.pipeline.clear()
        if self._due():
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers, and of what a chunk has other than data: httptools keeps trailers, however many."""
        if self.transport.is_closing():
            return
        if self.alarm is None:  # the first bytes of the next request
            self.allow(self.limits[0])
        self.unread += len(data)
        super().data_received(data)
        if self.unread > MAX_HEADERS and not self.transport.is_closing():
            if self.in_body:
                self.transport.close()
            else:
                self.refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """Give it time for a body; close it if too many requests wait."""
        super().on_headers_complete()
        if not self.pipeline or self.pipeline[0][0] is not self.cycle:
            self.running = self.cycle
        elif len(self.pipeline) > MAX_WAITING:
            raise ValueError("too many requests wait")  # for httptools, which stops
        self.in_body, self.unread = True, 0
        if not self.cycle.keep_alive:  # uvicorn would close it at the answer; a client that still sends could not read that
            self.last = self.cycle.keep_alive = True
        self.allow(self.limits[0] + GRACE)

    def on_chunk_header(self) -> None:
        """Count from zero again."""
        self.unread = 0

    def on_body(self, body: bytes) -> None:
        """Count from zero again."""
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: it is the server's turn."""
        super().on_message_complete()
        self.in_body, self.unread = False, 0
        self.allow(None)
        self._close_after_last()

    def on_response_complete(self) -> None:
        """Go on with the next request, and read no more while others wait."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self.running = following
        if self.pipeline:
            self.flow.pause_reading()
        self._close_after_last()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where the answer to an earlier request is due, which this one would be taken for, close."""
        if self._due() and (self.pipeline or not self.in_body or self.running.response_started):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        """Give the client time to read."""
        super().pause_writing()
        self._wait_for_reader(self.limits[0])

    def resume_writing(self) -> None:
        """Stop the clock."""
        super().resume_writing()
        self._wait_for_reader(None)

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
        """Close it, with a status, unless the answer to an earlier request is due, which this one would be taken for."""
        if not self._due():
            self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()

    def _close_after_last(self) -> None:
        if self.last and not self.in_body and not self.pipeline and not self._due():
            self.transport.close()

    def _due(self) -> bool:
        return self.running is not None and not self.running.response_complete

    def _wait_for_reader(self, seconds: float | None) -> None:
        if self.unwritten is not None:
            self.unwritten.cancel()
        self.unwritten = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
