"""The entrance to all paths: the key, models in the URL, counts, and the log of requests."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..monitoring.log import event
from ..monitoring.metrics import Meter
from .refusals import Dialect, RefusedError

Answer: TypeAlias = Callable[[Request], Awaitable[Response]]

PREFIX = "/models/"
NAMED = "fusedbert.model"  # the entry of a scope that holds the model's name in the URL
DESCRIBED = "/info"  # the page that is there below a model as well
OPEN = frozenset({"/health", "/ping", "/metrics", "/", "/docs", "/openapi.json"})  # to GET without a key
_LONGEST = 200  # characters of a path in the log


class Front:
    """An ASGI application around another one, which answers POST to ``paths`` itself.

    They would reach their functions through FastAPI's router too, for a fifth of the time of a short text.
    """

    def __init__(
        self, app: ASGIApp, *, meter: Meter, paths: Mapping[str, tuple[Dialect, Answer]], api_key: str | None, access_log: bool
    ) -> None:
        self._app, self._meter, self._answers, self._log = app, meter, paths, access_log
        self._paths = sorted((path for path in paths if path != "/"), key=len, reverse=True)
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499
        asked: str = scope["path"]
        if asked.startswith(PREFIX):
            scope = self._named(scope)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._meter.running += 1
        try:
            dialect, answer = self._answers.get(scope["path"], (Dialect.EITHER, None))
            if not self._allowed(scope):
                refused = RefusedError(401, "no api key, or a wrong one: send it as Authorization: Bearer KEY")
                await refused.answer(dialect)(scope, receive, noting)
            elif answer is None or scope["method"] != "POST":
                await self._app(scope, receive, noting)
            else:
                response = await answer(Request(scope, receive))
                await response(scope, receive, noting)
        except Exception:
            status = 500
            event(f"{scope['method']} {asked[:_LONGEST]!a} failed", level=logging.ERROR, exc_info=True)
            raise
        finally:
            self._meter.running -= 1
            seconds = time.perf_counter() - start
            self._meter.count(scope["path"], status, seconds)
            if self._log:
                self._write(scope, asked, status, seconds)

    def _allowed(self, scope: Scope) -> bool:
        if self._key is None or (scope["path"] in OPEN and scope["method"] in ("GET", "HEAD")):
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)

    def _named(self, scope: Scope) -> Scope:
        """Take ``/models/NAME`` from a path; a name may hold slashes."""
        rest: str = scope["path"].removeprefix(PREFIX)
        read = scope["method"] in ("GET", "HEAD")
        for path in (DESCRIBED,) if read else self._paths:
            if rest.endswith(path):
                return {**scope, "path": path, "raw_path": path.encode(), NAMED: rest.removesuffix(path)}
        return scope if read else {**scope, "path": "/", "raw_path": b"/", NAMED: rest.rstrip("/")}

    def _write(self, scope: Scope, asked: str, status: int, seconds: float) -> None:
        client = scope.get("client")
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": asked[:_LONGEST],
            "status": status,
            "ms": round(1e3 * seconds, 3),
            "client": client[0] if client else "",
        }
        fields |= scope.get("state", {}).get("log", {})
        event("request", fields)
