"""The server as a FastAPI application, to which others can add their paths."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from ..errors import FusedBertError
from ..hardware.packages import version
from ..run.prometheus import CONTENT_TYPE
from .about import info, model_list
from .http.bodies import Bodies
from .http.fields import parse, read_object
from .http.front import NAMED, Answer, Front
from .http.refusals import Dialect, RefusedError, json_response
from .models import Models, Sources, parse_models
from .monitoring.metrics import Meter, process_metrics
from .monitoring.siblings import Siblings
from .openapi import schema_of
from .options import ServerOptions
from .protocols.endpoints import ENDPOINTS, Endpoint

PATHS = tuple(path for endpoint in ENDPOINTS for path in endpoint.paths)
_OTHERS = ("/health", "/ping", "/info", "/metrics", "/v1/models", "/openapi.json", "/docs")


def create_app(
    models: Sources = None,
    *,
    options: ServerOptions | None = None,
    access_log: bool = False,
    siblings: str | None = None,
    **loading: Any,
) -> FastAPI:
    """Make the application that ``fusedbert serve`` runs; its models are loaded when it starts, in each process.

    Under a server other than ``fusedbert.engine.server.run`` nothing limits how slowly headers may arrive.

    Args:
        models: A model, several of which each is ``MODEL`` or ``NAME=MODEL``, or a dict by name; None for the embedded default.
        options: The limits of the server.
        access_log: Whether to log each request.
        siblings: A folder in which the processes of one server find each other.
        **loading: Keywords of ``Classifier.from_pretrained``; by default ``threads=1`` and ``long_text="error"``.

    Raises:
        OptionError: Two models have the same name.
    """
    service = Service(
        parse_models(models), options or ServerOptions(), {"threads": 1, "long_text": "error"} | loading, siblings
    )
    app = FastAPI(
        title="fusedbert",
        version=version(),
        description="Fine-tuned BERT classifiers over HTTP.",
        lifespan=service.lifespan,
        redoc_url=None,
        redirect_slashes=False,  # it would lead to whatever the client calls its host
        exception_handlers={HTTPException: _refused, FusedBertError: _failed},
    )
    app.state.service = service
    paths = {path: (endpoint.dialect, _route(service, endpoint)) for endpoint in ENDPOINTS for path in endpoint.paths}
    _add_pages(app, service)
    app.openapi = lambda: schema_of(app)  # type: ignore[method-assign]
    app.add_middleware(
        Front,
        meter=service.meter,
        paths=paths,
        api_key=service.options.api_key,
        access_log=access_log,
    )
    return app


class Service:
    """Models, limits and counts, which all paths share."""

    def __init__(self, names: dict[str, Any], options: ServerOptions, loading: dict[str, Any], siblings: str | None) -> None:
        self.names, self.options, self.loading = names, options, loading
        self.meter, self.bodies = Meter((*PATHS, *_OTHERS)), Bodies(options)
        self._models: Models | None = None
        self.siblings = Siblings(siblings, lambda: process_metrics(self.models, self.meter))

    @property
    def models(self) -> Models:
        """The models, which are loaded."""
        assert self._models is not None
        return self._models

    def load(self) -> Models:
        """Load the models, unless they are.

        Raises:
            FusedBertError: One cannot be loaded.
        """
        if self._models is None:
            self._models = Models(self.names, self.options, self.loading)
        return self._models

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Load the models at the start, and close them at the end."""
        app.state.models = models = self.load()
        await self.siblings.open()
        try:
            yield
        finally:
            self.siblings.close()
            await asyncio.to_thread(models.close)
            self._models = None  # a second start loads them again

    async def answer(self, endpoint: Endpoint, request: Request) -> Response:
        """Answer a request for a model's results."""
        try:
            async with self.bodies.read(request) as body:
                fields = read_object(body)
                form = next((each for each in endpoint.forms if each.field in fields), endpoint.forms[0])
                if (named := request.scope.get(NAMED)) is not None:
                    fields["model"] = self.models.check(named)
                log = request.scope.setdefault("state", {}).setdefault("log", {})
                named = fields.get("model")
                log.update(bytes=len(body), model=named[:80] if isinstance(named, str) else None)
                asked = parse(form.request, fields)
                return json_response(await while_connected(request, form.handler(self.models, asked)))
        except FusedBertError as error:
            refused = RefusedError.of(error)
        except RefusedError as error:
            refused = error
        except ClientDisconnect:
            return Response(status_code=499)  # for the metrics: the client has gone
        except asyncio.CancelledError:  # by the server, some seconds after it was stopped
            refused = RefusedError(503, "the server is closing")
        request.scope.setdefault("state", {}).setdefault("log", {})["error"] = refused.message
        if refused.status == 429 and refused.retry_after is None:
            refused.retry_after = max(each.retry_after() for each in self.models.served.values())
        return refused.answer(endpoint.dialect)


async def while_connected(request: Request, work: Awaitable[Any]) -> Any:
    """Await the work on a request; cancel it if the client leaves, so that its texts are not run."""
    task, gone = asyncio.current_task(), False
    assert task is not None

    async def left() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    leaving = asyncio.ensure_future(left())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        leaving.cancel()


def _route(service: Service, endpoint: Endpoint) -> Answer:
    async def route(request: Request) -> Response:
        return await service.answer(endpoint, request)

    return route


async def _failed(request: Request, error: Exception) -> Response:
    """Answer an error of the engine in a path of the application's own."""
    assert isinstance(error, FusedBertError)
    return RefusedError.of(error).answer(Dialect.EITHER)


async def _refused(request: Request, error: Exception) -> Response:
    """Answer a path or a method that is not there, or what a path of the application's own has raised."""
    assert isinstance(error, HTTPException)
    path, status = request.scope["path"], error.status_code
    methods = {method for route in request.app.routes if getattr(route, "path", "") == path for method in _methods(route)}
    if status == 404 and path in PATHS and request.method != "POST":
        status = 405
    why = str(error.detail)
    if status == 405:
        why, methods = HTTPStatus(405).phrase, methods | ({"POST"} if path in PATHS else set())
    if "endpoint" not in request.scope or status == 405:  # its function has not run
        why = f"{request.method} {ascii(path)[:80]}: {why}"
    answer = RefusedError(status, why).answer(Dialect.EITHER)
    answer.headers.update(error.headers or {})
    if status == 405:
        answer.headers["allow"] = ", ".join(sorted(methods))
    return answer


def _methods(route: Any) -> set[str]:
    return getattr(route, "methods", None) or set()  # a folder of files, or a WebSocket, has none


def _add_pages(app: FastAPI, service: Service) -> None:
    page = importlib.resources.files("fusedbert.engine.server").joinpath("template/page.html").read_text(encoding="utf-8")

    def page_at(path: str, summary: str, answer: Callable[..., Any], **keywords: Any) -> None:
        app.add_api_route(path, answer, methods=["GET"], summary=summary, **keywords)
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False, **keywords)  # for probes

    async def health() -> PlainTextResponse:
        return PlainTextResponse("")

    async def about(request: Request) -> Any:
        try:
            return info(service.models, service.options, request.scope.get(NAMED))
        except RefusedError as error:
            return error.answer(Dialect.TEI)

    async def listed() -> dict[str, Any]:
        return model_list(service.models)

    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(await service.siblings.metrics(), media_type=CONTENT_TYPE)

    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    for path in ("/health", "/ping"):
        page_at(path, "Say that the models are loaded.", health, response_class=PlainTextResponse)
    page_at("/info", "Describe the first model, as text-embeddings-inference does, and name all.", about)
    page_at("/v1/models", "List the models, as OpenAI's API does.", listed)
    page_at("/metrics", "Give numbers for Prometheus.", metrics, response_class=PlainTextResponse)
    page_at("/", "A page to try it.", index, response_class=HTMLResponse)
