"""A classifier as a web service: the JSON of text-embeddings-inference, metrics for Prometheus, and a page to try it.

pip install "fusedbert[cpu,service]"
python examples/fastapi_service.py artifacts/sst2-mini --port 8000

Or under a server of your choice, one classifier in each of its processes:
MODEL=artifacts/sst2-mini uvicorn --app-dir examples --factory fastapi_service:create_app --workers 2
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel
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
MAX_QUEUE = 512  # texts that wait; more are refused with 429 while there is still time to ask elsewhere
SECONDS = 10.0  # that a text may wait
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds, of the histogram


class PredictRequest(BaseModel):
    """``inputs``: a text, a pair ``[a, b]``, or a batch of these, each in a list of its own: ``[[a], [b], [c, d]]``."""

    inputs: str | list[str] | list[list[str]]
    truncate: bool = False
    raw_scores: bool = False


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.answer = JSONResponse({"error": message, "error_type": kind}, status_code=status)

    @classmethod
    def of(cls, error: Exception) -> RefusedError:
        """Answer an error of the engine with the status that text-embeddings-inference gives such a one."""
        if isinstance(error, (OverloadError, DeadlineError)):
            return cls(429, "Overloaded", str(error))
        if isinstance(error, TextTooLongError):
            return cls(413, "Validation", str(error))
        if isinstance(error, InputError):
            return cls(422, "Tokenizer", str(error))
        if isinstance(error, ClosedError):
            return cls(503, "Unhealthy", str(error))
        return cls(424, "Backend", str(error))


class Meter:
    """Counts requests by path and status, and their times; refuses bodies that are too large before they are read."""

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

            length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            try:
                if length.isdigit() and int(length) > MAX_BYTES:
                    message = f"the request has {int(length)} bytes, the limit is {MAX_BYTES}"
                    await RefusedError(413, "Validation", message).answer(scope, receive, noting)
                else:
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


def item(value: str | list[str]) -> str | tuple[str, str]:
    """Read one input: a text, or a pair."""
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return value[0]
    if len(value) == 2:
        return value[0], value[1]
    raise RefusedError(422, "Validation", f"inputs has a list of {len(value)}: a text is [a], a pair [a, b]")


async def predict(batcher: Batcher, request: PredictRequest) -> Any:
    """Score each input; a list of ``{"label", "score"}`` for one input, a list of these for a batch."""

    async def one(value: str | list[str]) -> Any:
        return await batcher.classify(
            item(value),
            top_k=None,
            function_to_apply="none" if request.raw_scores else None,
            truncation=request.truncate,
            timeout=SECONDS,
        )

    inputs: Any = request.inputs
    if isinstance(inputs, str) or not inputs or isinstance(inputs[0], str):
        return await one(inputs)
    if len(inputs) > MAX_BATCH:
        raise RefusedError(413, "Validation", f"batch size {len(inputs)} > maximum allowed batch size {MAX_BATCH}")
    results = await asyncio.gather(*map(one, inputs), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def create_app(model: str | None = None, *, threads: int | None = None) -> FastAPI:
    """Make the service.

    Args:
        model: An artifact, a checkpoint or a hub id; None for the environment variable MODEL, else the embedded default.
        threads: Threads of one run. On the CPU 1 is best for many callers: texts then run side by side.
    """
    model = model or os.environ.get("MODEL") or None
    page = Path(__file__).with_name("fastapi_page.html").read_text(encoding="utf-8")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # In each process of a server, after it was forked: loading takes a moment, and the batcher has threads.
        with Classifier.from_pretrained(model, threads=threads or 1) as clf:
            clf("warm up")
            app.state.clf = clf
            async with Batcher(clf, max_queue=MAX_QUEUE) as batcher:
                app.state.batcher = batcher
                yield

    app = FastAPI(title="fusedbert", version=__version__, lifespan=lifespan)
    meter = Meter()
    app.add_middleware(meter.around)

    @app.post("/predict")
    async def predict_route(request: PredictRequest) -> JSONResponse:
        try:
            return JSONResponse(await predict(app.state.batcher, request))
        except FusedBertError as error:
            return RefusedError.of(error).answer
        except RefusedError as error:
            return error.answer

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return RefusedError(422, "Validation", f"{place}: {first['msg']}").answer

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
    parser = argparse.ArgumentParser(description="Serve a classifier over HTTP.")
    parser.add_argument("model", nargs="?", help="artifact, checkpoint folder or hub id (default: the embedded one)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1, help="threads of one run (1 is best for many callers on the CPU)")
    options = parser.parse_args()
    app = create_app(options.model, threads=options.threads)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
