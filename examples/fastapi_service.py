"""A classifier as a web service: the JSON of text-embeddings-inference, metrics for Prometheus, and a page to try it.

pip install "fusedbert[cpu,service]"
python examples/fastapi_service.py artifacts/sst2-mini --port 8000

Or under a server of your choice, one classifier in each of its processes:
MODEL=artifacts/sst2-mini uvicorn --app-dir examples --factory fastapi_service:create_app --workers 2 \\
    --http fastapi_connection:Connection --timeout-graceful-shutdown 5
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusedbert.engine import (
    Batcher,
    Classifier,
    ClosedError,
    DeadlineError,
    FusedBertError,
    InputError,
    OverloadError,
    TextTooLongError,
    __version__,
    prometheus,
)

MAX_BATCH = 32  # texts of one request
MAX_BYTES = 2_000_000  # of one request
MAX_HELD = 64_000_000  # bytes of all requests that are being read or wait for their answer
MAX_QUEUE = 512  # texts that wait; more are refused with 429 while there is still time to ask elsewhere
SECONDS = 10.0  # that a text may wait
READ_SECONDS = 10.0  # that the body of a request may take to arrive
CLOSE_SECONDS = 5  # that answers under way have when the service is stopped
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds, of the histogram

Input = Annotated[list[str], Field(min_length=1, max_length=2)]


class PredictRequest(BaseModel):
    """``inputs``: a text, a pair ``[a, b]``, or a batch of these, each in a list of its own: ``[[a], [b], [c, d]]``."""

    model_config = ConfigDict(strict=True)
    inputs: str | Input | Annotated[list[Input], Field(min_length=1)]
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None  # None: the model's
    raw_scores: bool = False


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str = "Validation") -> None:
        super().__init__(message)
        message = message.encode("utf-8", "backslashreplace").decode()  # it may name half of a surrogate pair
        # A client that is late has more to send, which is not to be taken for its next request.
        headers = {"connection": "close"} if status == 408 else None
        self.answer = JSONResponse({"error": message, "error_type": kind}, status_code=status, headers=headers)

    @classmethod
    def of(cls, error: Exception) -> RefusedError:
        """Answer an error of the engine with the status that text-embeddings-inference gives such a one."""
        if isinstance(error, (OverloadError, DeadlineError)):
            return cls(429, str(error), "Overloaded")
        if isinstance(error, TextTooLongError):
            return cls(413, str(error))
        if isinstance(error, InputError):
            return cls(422, str(error), "Tokenizer")
        if isinstance(error, ClosedError):
            return cls(503, str(error), "Unhealthy")
        return cls(424, str(error), "Backend")


class Meter:
    """Counts requests by path and status, and their times."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def around(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, status = time.perf_counter(), 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                self.count(scope["path"], status, time.perf_counter() - start)

        return measured

    def count(self, path: str, status: int, seconds: float) -> None:
        """Add a request."""
        known = path if path in ("/predict", "/health", "/info", "/metrics", "/") else "other"  # a label of bounded size
        self.requests[known, status] += 1
        if known == "/predict":
            self.buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds

    def text(self) -> str:
        """Return the counts in Prometheus' text format."""
        lines = ["# HELP http_requests_total Requests by path and status.", "# TYPE http_requests_total counter"]
        lines += [f'http_requests_total{{path="{path}",status="{code}"}} {n}' for (path, code), n in self.requests.items()]
        name, total = "http_predict_duration_seconds", 0
        lines += [f"# HELP {name} Time of /predict.", f"# TYPE {name} histogram"]
        for limit, number in zip((*map(str, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += number
            lines.append(f'{name}_bucket{{le="{limit}"}} {total}')
        return "\n".join([*lines, f"{name}_sum {self.seconds:.6f}", f"{name}_count {total}", ""])


def queue_metrics(batcher: Batcher) -> str:
    """Return the counts of the batcher in Prometheus' text format."""
    lines = []
    for name in ("submitted", "answered", "failed", "refused", "expired", "cancelled", "batches", "waiting", "running"):
        gauge = name in ("waiting", "running")
        metric = f"fusedbert_batcher_{name}" + ("" if gauge else "_total")
        lines += [f"# TYPE {metric} {'gauge' if gauge else 'counter'}", f"{metric} {getattr(batcher.stats, name)}"]
    return "\n".join([*lines, ""])


class Bodies:
    """Reads the bodies of requests, and limits the bytes of each and of all together."""

    def __init__(self) -> None:
        self.held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """Read the body of a request, which counts until its answer is there."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > MAX_BYTES:
            raise RefusedError(413, f"the request has {int(declared)} bytes, the limit is {MAX_BYTES}")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of another site could send any other type in its visitor's name
            raise RefusedError(415, f"content-type is {kind!a}, the body is to be application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for part in request.stream():
                    body += part
                    self.held += len(part)
                    if len(body) > MAX_BYTES:
                        raise RefusedError(413, f"the request has more than {MAX_BYTES} bytes, the limit")
                    if self.held > MAX_HELD and len(body) > MAX_BYTES // 32:  # small ones find room at any time
                        raise RefusedError(429, f"requests of {MAX_HELD} bytes wait already: try again later", "Overloaded")
            yield body
        finally:
            self.held -= len(body)


def parse(body: bytearray) -> PredictRequest:
    """Read a request, strictly: each field known, and there once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise ValueError("a field is there twice")
        return fields

    try:
        fields = json.loads(body, object_pairs_hook=once)
    except RecursionError:
        raise RefusedError(422, "the body is nested too deeply") from None
    except ValueError as error:
        raise RefusedError(422, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedError(422, 'the body is not an object: send {"inputs": "a text"}')
    for name in fields:
        if name not in PredictRequest.model_fields:
            known = ", ".join(PredictRequest.model_fields)
            raise RefusedError(422, f"{name[:40]!a} is not a field: there are {known}")
    inputs = fields.get("inputs")
    if isinstance(inputs, list) and len(inputs) > MAX_BATCH:
        raise RefusedError(413, f"batch size {len(inputs)} > maximum allowed batch size {MAX_BATCH}")
    try:
        return PredictRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name, reason = first["loc"][0], first["msg"]
        if name == "inputs" and name in fields:  # pydantic names only one of the three forms
            reason = "give a text, a pair [a, b], or a batch of these [[a], [b], [c, d]]"
        raise RefusedError(422, f"{name}: {reason}") from None


async def predict(batcher: Batcher, request: PredictRequest) -> Any:
    """Score each input; a list of ``{"label", "score"}`` for one input, a list of these for a batch."""
    side = request.truncation_direction

    async def one(value: str | list[str]) -> Any:
        text: Any = value if isinstance(value, str) else value[0] if len(value) == 1 else tuple(value)
        return await batcher.classify(
            text,
            top_k=None,
            function_to_apply="none" if request.raw_scores else None,
            truncation=bool(request.truncate),
            truncation_side=side.lower() if side else None,
            timeout=SECONDS,
        )

    inputs: Any = request.inputs
    if isinstance(inputs, str) or isinstance(inputs[0], str):
        return await one(inputs)
    tasks = [asyncio.ensure_future(one(value)) for value in inputs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one has failed, the others are not needed
            task.cancel()


async def while_connected(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Await the work on a request; cancel it if the client leaves, so that its texts leave the queue."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = working, _ = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in tasks:
            task.cancel()


def create_app(model: str | None = None, *, threads: int | None = None, split_special_tokens: bool | None = None) -> FastAPI:
    """Make the service.

    Args:
        model: An artifact, a checkpoint or a hub id; None for the environment variable MODEL, else the embedded default.
        threads: Threads of one run. On the CPU 1 is best for many callers: texts then run side by side.
        split_special_tokens: Whether "[SEP]" and the like are plain text in what clients send; None for what the model says.
    """
    model = model or os.environ.get("MODEL") or None
    page = Path(__file__).with_name("fastapi_page.html").read_text(encoding="utf-8")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # In each process of a server, after it was forked: loading takes a moment, and the batcher has threads.
        with Classifier.from_pretrained(model, threads=threads or 1, split_special_tokens=split_special_tokens) as clf:
            clf("warm up")
            app.state.clf = clf
            async with Batcher(clf, max_queue=MAX_QUEUE) as batcher:
                app.state.batcher = batcher
                yield

    app = FastAPI(title="fusedbert", version=__version__, lifespan=lifespan)
    meter, bodies = Meter(), Bodies()
    app.add_middleware(meter.around)
    schema = {"requestBody": {"content": {"application/json": {"schema": PredictRequest.model_json_schema()}}}}

    @app.post("/predict", openapi_extra=schema)
    async def predict_route(request: Request) -> Response:
        try:
            async with bodies.read(request) as body:
                return JSONResponse(await while_connected(request, predict(app.state.batcher, parse(body))))
        except FusedBertError as error:
            return RefusedError.of(error).answer
        except RefusedError as error:
            return error.answer
        except TimeoutError:
            return RefusedError(408, f"the body did not arrive within {READ_SECONDS:g} s").answer
        except ClientDisconnect:
            return Response(status_code=499)  # for the metrics: it goes to nobody
        except asyncio.CancelledError:  # by the server, CLOSE_SECONDS after it was stopped
            return RefusedError(503, "the service is closing", "Unhealthy").answer

    @app.get("/health")
    async def health() -> PlainTextResponse:
        return PlainTextResponse("")

    @app.get("/info")
    async def info() -> dict[str, Any]:
        clf: Classifier = app.state.clf
        labels = dict(enumerate(clf.classes_))
        return {
            "model_id": model or "embedded default",
            "model_sha": None,
            "model_dtype": clf.runtime.precision,
            "model_type": {"classifier": {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}},
            "max_concurrent_requests": MAX_QUEUE,
            "max_input_length": clf.max_length,
            "max_client_batch_size": MAX_BATCH,
            "auto_truncate": False,
            "version": __version__,
        }

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        text = prometheus(app.state.clf) + queue_metrics(app.state.batcher) + meter.text()
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    return app


def main() -> None:
    """Serve until interrupted."""
    from fastapi_connection import Connection  # the file next to this one

    parser = argparse.ArgumentParser(description="Serve a classifier over HTTP.")
    parser.add_argument("model", nargs="?", help="artifact, checkpoint folder or hub id (default: the embedded one)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1, help="threads of one run (1 is best for many callers on the CPU)")
    parser.add_argument("--split-special-tokens", action="store_true", default=None, help='"[SEP]" in a text is text')
    options = parser.parse_args()
    app = create_app(options.model, threads=options.threads, split_special_tokens=options.split_special_tokens)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again when it has ended in order
    limits: dict[str, Any] = {"http": Connection, "timeout_graceful_shutdown": CLOSE_SECONDS}
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, log_level="warning", **limits)


if __name__ == "__main__":
    main()
