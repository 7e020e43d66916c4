"""Bodies of requests: their bytes are limited as they arrive, of each and of all together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from ..options import ServerOptions
from .refusals import RefusedError

_SMALL = 32  # a body of a small part of max_bytes finds room at any time: 1 / _SMALL


class Bodies:
    """Reads bodies; ``held`` are the bytes of those that are being read or wait for their answer."""

    def __init__(self, options: ServerOptions) -> None:
        self._options, self.held = options, 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """Read the body of a request, which counts until its answer is there.

        Raises:
            RefusedError: It is too large, too slow, no JSON, or too many wait already.
            ClientDisconnect: The client has gone.
        """
        most, seconds = self._options.max_bytes, self._options.read_timeout
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise RefusedError(413, f"the request has {int(declared)} bytes, the limit is {most}")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of another site could send any other type in its visitor's name
            raise RefusedError(415, f"content-type is {kind[:80]!a}, the body is to be application/json")
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":  # a small body could become a huge one
            raise RefusedError(415, f"content-encoding is {coding[:80]!a}: send the body as it is, not compressed")
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(seconds):
                    async for part in request.stream():
                        self._add(body, part)
            except TimeoutError:
                raise RefusedError(408, f"the body did not arrive within {seconds:g} s") from None
            yield body
        finally:
            self.held -= len(body)

    def _add(self, body: bytearray, part: bytes) -> None:
        most, held = self._options.max_bytes, self._options.max_held
        body += part
        self.held += len(part)
        if len(body) > most:
            raise RefusedError(413, f"the request has more than {most} bytes, the limit")
        if self.held > held and len(body) > most // _SMALL:
            raise RefusedError(429, f"requests of {held} bytes wait already: try again later", retry_after=1)
