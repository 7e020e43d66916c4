"""A pipeline of transformers behind FastAPI, in one process; the arguments are CHECKPOINT, PORT, DTYPE and THREADS.

The endpoint is a plain function, which FastAPI calls from its pool of threads.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

from fastapi import Body, FastAPI


def make_app(classify: Any) -> FastAPI:
    """Make the app around a pipeline: ``/classify`` takes texts as ``inputs``, ``/health`` answers once it is loaded."""
    app = FastAPI()

    @app.post("/classify")
    def answer(inputs: Annotated[list[str], Body(embed=True)]) -> Any:
        return classify(inputs)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main(checkpoint: str, port: str, dtype: str, threads: str) -> None:
    """Load the pipeline and serve it in this process."""
    torch, transformers, uvicorn = map(importlib.import_module, ("torch", "transformers", "uvicorn"))
    torch.set_num_threads(int(threads))
    settings = {"model": checkpoint, "device": "cpu", "dtype": getattr(torch, dtype)}
    pipe = transformers.pipeline("text-classification", **settings)

    def classify(texts: list[str]) -> Any:
        return pipe(texts, batch_size=len(texts), truncation=True)

    uvicorn.run(make_app(classify), host="127.0.0.1", port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
