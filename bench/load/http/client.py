"""The client: an open loop over HTTP that costs little, because the cores belong to the server.

Requests are bytes that were made before, connections stay open, and an answer is read no further than its length. A latency
counts from the intended arrival to the last byte of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from ..open_loop import Floats, Outcome, summarize

CONNECTIONS = 256  # at most; a request beyond them waits in the client, and that counts
OK = 200
LOST, FRAMING = "connection closed", "no length in the answer"
T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine, on uvloop where it is installed."""
    factory = None
    with contextlib.suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work())


class Connection(asyncio.Protocol):
    """One connection that carries one request at a time."""

    def __init__(self, client: Client) -> None:
        self._client, self._data = client, b""
        self._index = -1  # of the request under way; below 0 for none
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def usable(self) -> bool:
        """True while it is open."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, index: int, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._index, self._data = index, b""
        self._transport.write(request)

    def close(self) -> None:
        """Close it at once; a request under way is dropped without an end."""
        self._index = -1
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect an answer, and pass it on when it is whole."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = _length(head)
        if length is None:
            self._end(FRAMING, b"")
            self.close()
        elif len(body) >= length:
            status = int(head[9:12])
            self._end("" if status == OK else f"status {status}", body)
            self._client.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request under way; one that the server never began to answer is sent once more."""
        self._transport = None
        index, self._index = self._index, -1
        if index >= 0:
            self._client.lost(index, begun=bool(self._data))

    def _end(self, kind: str, body: bytes) -> None:
        index, self._index, self._data = self._index, -1, b""
        if index >= 0:
            self._client.ended(index, kind, body)


def _length(head: bytes) -> int | None:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else None


class Client:
    """A pool of connections to a server on loopback, and the ends of requests: time, kind of error, and answer."""

    def __init__(self, port: int, requests: Sequence[bytes], *, keep: int = 0) -> None:
        self._port, self._requests = port, requests
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._again: set[int] = set()  # requests that were sent a second time
        self._keep = keep  # answers that are kept
        self._loop = asyncio.get_running_loop()
        self.at: dict[int, float] = {}  # when each request ended, by the loop's clock
        self.errors: dict[int, str] = {}
        self.answers: dict[int, bytes] = {}
        self.when_ended: Callable[[int], object] = lambda _index: None

    def send(self, index: int) -> None:
        """Send request ``index`` on an idle connection, on a new one, or when one becomes idle."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(index, self._requests[index])
                return
        self._waiting.append(index)
        self._grow()

    def free(self, connection: Connection) -> None:
        """Give a connection the request that waits longest, or keep it for later."""
        if self._waiting and connection.usable:
            index = self._waiting.popleft()
            connection.send(index, self._requests[index])
        else:
            self._idle.append(connection)

    def ended(self, index: int, kind: str, body: bytes = b"") -> None:
        """Record the end of a request."""
        self.at[index] = self._loop.time()
        if kind:
            self.errors[index] = kind
        elif len(self.answers) < self._keep:
            self.answers[index] = body
        self.when_ended(index)

    def lost(self, index: int, *, begun: bool) -> None:
        """Send a request once more whose connection was closed before any answer, as clients with kept connections do."""
        if begun or index in self._again:
            self.ended(index, LOST)
            if self._waiting:
                self._grow()
        else:
            self._again.add(index)
            self.send(index)

    def close(self) -> None:
        """Drop all connections and whatever is under way."""
        self._waiting.clear()
        for task in self._opening:
            task.cancel()
        for connection in self._all:
            connection.close()

    def _grow(self) -> None:
        """Open one more connection, if there may be more."""
        self._all = [each for each in self._all if each.usable]
        if len(self._all) + len(self._opening) < CONNECTIONS:
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except OSError as error:
            if self._waiting:
                self.ended(self._waiting.popleft(), type(error).__name__)
            return
        self._all.append(connection)
        self.free(connection)


async def alone(port: int, requests: Sequence[bytes], seconds: float) -> tuple[list[float], Client]:
    """Send requests one after the other, at most for so long; return the seconds of each, and the client with the answers."""
    client, loop = Client(port, requests, keep=len(requests)), asyncio.get_running_loop()
    done, times, begun = asyncio.Event(), [], loop.time()
    client.when_ended = lambda _index: done.set()
    for index in range(len(requests)):
        done.clear()
        sent = loop.time()
        client.send(index)
        try:
            await asyncio.wait_for(done.wait(), max(1.0, begun + 4.0 * seconds - loop.time()))
        except TimeoutError:
            client.errors[index] = "TimeoutError"
            break
        times.append(client.at[index] - sent)
        if loop.time() - begun > seconds:
            break
    client.close()
    return times, client


async def saturate(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> float:
    """Keep connections busy with requests; return the answers a second."""
    client, loop = Client(port, requests), asyncio.get_running_loop()
    sent, until, over = connections, loop.time() + seconds, asyncio.Event()

    def following(_index: int) -> None:
        nonlocal sent
        if loop.time() >= until or sent == len(requests):
            over.set()
        else:
            sent += 1
            client.send(sent - 1)

    client.when_ended, begun = following, loop.time()
    for index in range(min(connections, len(requests))):
        client.send(index)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), 4.0 * seconds)
    client.close()
    last = max(client.at.values(), default=until)
    return (len(client.at) - len(client.errors)) / max(last - begun, 1e-9)


async def drive(offsets: Floats, client: Client, *, warm: float, grace: float, give_up: float) -> Outcome:
    """Send requests by a schedule, as ``open_loop.drive``; those of the first ``warm`` seconds do not count."""
    loop, count, over = asyncio.get_running_loop(), len(offsets), asyncio.Event()
    left, sent = count, np.full(count, np.nan)

    def ended(_index: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    client.when_ended, start = ended, loop.time()
    for index, offset in enumerate(offsets.tolist()):
        await asyncio.sleep(max(0.0, start + offset - loop.time()))  # also of 0: answers are read at the same time
        if (now := loop.time()) - start - offset > give_up:
            break
        sent[index] = now
        client.send(index)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), grace)
    end = loop.time()
    client.close()
    counted = offsets >= warm if (offsets >= warm).any() else np.ones(count, bool)
    first = int(counted.argmax())
    times = np.array([client.at.get(index, np.nan) for index in range(first, count)])
    kinds = [client.errors.get(index, "") for index in range(first, count)]
    return summarize(start + offsets[first:], sent[first:], times, kinds, start=start + (warm if first else 0.0), end=end)
