"""The table of the paths that answer with a model's results."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from ..http.refusals import Dialect
from ..models import Models
from . import documents, hosted, tag, tei, vllm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """A form of request that a path takes; ``handler`` makes its answer, of type ``response``."""

    request: type[BaseModel]
    response: type[BaseModel]
    handler: Callable[[Models, Any], Awaitable[Any]]
    field: str = ""  # whose presence selects this form


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A path, or several that are the same, and the forms that it takes."""

    paths: tuple[str, ...]
    dialect: Dialect
    forms: tuple[Form, ...]


_TEXTS = Form(request=tei.RerankRequest, response=tei.RerankResponse, handler=tei.rerank, field="texts")
_DOCUMENTS = Form(
    request=documents.DocumentsRequest,
    response=documents.DocumentsResponse,
    handler=documents.rerank_v1,
    field="documents",
)

ENDPOINTS = (
    Endpoint(
        paths=("/predict",),
        dialect=Dialect.TEI,
        forms=(Form(request=tei.PredictRequest, response=tei.PredictResponse, handler=tei.predict),),
    ),
    Endpoint(
        paths=("/rerank",),
        dialect=Dialect.EITHER,
        forms=(_TEXTS, _DOCUMENTS),
    ),
    Endpoint(paths=("/v1/rerank",), dialect=Dialect.COHERE, forms=(_DOCUMENTS,)),
    Endpoint(
        paths=("/v2/rerank",),
        dialect=Dialect.COHERE,
        forms=(Form(request=documents.DocumentsRequest, response=documents.DocumentsV2Response, handler=documents.rerank_v2),),
    ),
    Endpoint(
        paths=("/classify", "/v1/classify"),
        dialect=Dialect.OPENAI,
        forms=(Form(request=vllm.ClassifyRequest, response=vllm.ClassifyResponse, handler=vllm.classify),),
    ),
    Endpoint(
        paths=("/score", "/v1/score"),
        dialect=Dialect.OPENAI,
        forms=(Form(request=vllm.ScoreRequest, response=vllm.ScoreResponse, handler=vllm.score),),
    ),
    Endpoint(
        paths=("/tag",),
        dialect=Dialect.TEI,
        forms=(Form(request=tag.TagRequest, response=tag.TagResponse, handler=tag.tag),),
    ),
    Endpoint(
        paths=("/",),
        dialect=Dialect.TEI,
        forms=(
            Form(request=hosted.HostedRequest, response=hosted.HostedResponse, handler=hosted.infer, field="inputs"),
            _TEXTS,
        ),
    ),
)
