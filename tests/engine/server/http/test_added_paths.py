"""Paths that an application adds: the models are at hand, and the engine's errors have their statuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')

from fastapi import HTTPException
from starlette.routing import Mount

from fusedbert.engine import Classifier, OverloadError
from fusedbert.engine.server import create_app


async def get(app: Any, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a request through the application, without a server."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"text=good+movie", "client": None}
    await app({**scope, "raw_path": path.encode(), "root_path": "", "http_version": "1.1", "scheme": "http"}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_a_path_of_the_application_has_the_models_and_the_statuses_of_errors(artifact: Path) -> None:
    app = create_app({"mood": artifact})

    @app.get("/label")
    async def label(text: str) -> str:
        return str((await app.state.models.served["mood"].batcher.classify(text, top_k=1))[0]["label"])

    @app.get("/full")
    async def full() -> None:
        raise OverloadError("too much")

    async def ask() -> list[tuple[int, bytes]]:
        async with app.router.lifespan_context(app):
            return [await get(app, path) for path in ("/label", "/full", "/none")]

    (found, answer), (refused, why), (missing, _) = asyncio.run(ask())
    with Classifier.from_pretrained(artifact) as clf:
        assert (found, answer.decode()) == (200, f'"{clf.predict(["good movie"])[0]}"')
    assert refused == 429 and b"too much" in why and missing == 404


def test_what_a_path_of_the_application_raises_keeps_its_status_and_its_words(artifact: Path) -> None:
    app = create_app({"mood": artifact})

    @app.get("/texts")
    async def texts(text: str) -> None:
        raise HTTPException(404, f"no text is called {text}")

    @app.get("/paid")
    async def paid() -> None:
        raise HTTPException(498, "the token has expired", headers={"x-renew": "/renew"})

    app.router.routes.append(Mount("/files", routes=[]))

    async def ask() -> list[tuple[int, bytes]]:
        asked = [("/texts", "GET"), ("/paid", "GET"), ("/texts", "PUT"), ("/files", "PUT"), ("/predict", "GET")]
        return [await get(app, *each) for each in asked]

    statuses, bodies = zip(*asyncio.run(ask()), strict=True)
    assert statuses == (404, 498, 405, 404, 405)
    assert b"no text is called good movie" in bodies[0] and b"the token has expired" in bodies[1]


def test_an_application_can_be_started_again(artifact: Path) -> None:
    app = create_app({"mood": artifact})

    @app.get("/label")
    async def label(text: str) -> str:
        return str((await app.state.models.served["mood"].batcher.classify(text, top_k=1))[0]["label"])

    async def ask() -> int:
        async with app.router.lifespan_context(app):
            return (await get(app, "/label"))[0]

    assert [asyncio.run(ask()), asyncio.run(ask())] == [200, 200]
