"""Cohere's and Jina's ``rerank``: a query and ``documents``.

https://docs.cohere.com/reference/rerank and https://docs.cohere.com/v1/reference/rerank; https://api.jina.ai/redoc; vLLM's
``/v1/rerank`` takes the fields of both.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ...text.inputs import Cut, LongText, Truncation, check_item
from ..models import Ability, Models, ServedModel
from .calls import PromptFields, Usage, check_size, cuts, prompt_cut, rank_pairs


class Document(BaseModel):
    """A document as an object; fields other than ``text`` are not ranked by."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue]  # pyright: ignore[reportIncompatibleVariableOverride]
    text: str


_DOCUMENTS = "give a list of texts, or of objects with a field text"
_TOKENS = "Tokens at which a document is cut; without it or with 0 the model's maximum."


class DocumentsRequest(PromptFields):
    """A query, and the documents to order by how well they answer it."""

    query: str | Document = Field(description='give a text, or {"text"}')
    documents: Annotated[list[str | Document], Field(min_length=1)] = Field(description=_DOCUMENTS)
    top_n: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Documents to return; 0 for all.")
    return_documents: bool | None = None
    rank_fields: list[Literal["text"]] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=0)] | None = Field(default=None, description=_TOKENS)
    truncation: Literal[True] | None = Field(default=None, description="Long documents are always cut.")
    max_chunks_per_doc: int | None = None  # a document is one chunk


class Result(BaseModel):
    """A document's place in the request, its score from 0 to 1, and the document."""

    index: int
    relevance_score: float
    document: Document | None = None


class DocumentsResponse(BaseModel):
    """The documents, the best first."""

    id: str
    object: str = "list"
    model: str
    results: list[Result]
    meta: dict[str, Any]
    usage: Usage


class DocumentsV2Response(BaseModel):
    """The documents, the best first."""

    id: str
    results: list[Result]
    meta: dict[str, Any]


async def rerank_v1(models: Models, request: DocumentsRequest) -> dict[str, Any]:
    """Order documents by their scores for a query; they are returned unless ``return_documents`` is false."""
    return await _rerank(models, request, version="1", returned=request.return_documents is not False)


async def rerank_v2(models: Models, request: DocumentsRequest) -> dict[str, Any]:
    """Order documents by their scores for a query; they are returned if ``return_documents`` is true."""
    found = await _rerank(models, request, version="2", returned=bool(request.return_documents))
    return {name: found[name] for name in ("id", "results", "meta")}


async def _rerank(models: Models, request: DocumentsRequest, *, version: str, returned: bool) -> dict[str, Any]:
    served = models.find(request.model, Ability.RANK)
    check_size(len(request.documents), served.options.max_documents, "number of documents")
    query = _text(request.query)
    pairs = [(query, _text(each)) for each in request.documents]
    cut = await _cut(served, request, query)
    order, scores, tokens = await rank_pairs(served, pairs, raw=request.raw, cut=cut)
    results = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": _shown(request.documents[index])} if returned else {}),
        }
        for index in order[: request.top_n or None]
    ]
    return {
        "id": request.request_id or str(uuid.uuid4()),
        "object": "list",
        "model": served.name,
        "results": results,
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
        "usage": Usage.of(tokens),
    }


async def _cut(served: ServedModel, request: DocumentsRequest, query: str) -> Cut:
    """Return how long documents are cut; always, but where the server reads them in windows."""
    cut = prompt_cut(served, request, cuts(served))
    most, tokens = served.clf.max_length, request.max_tokens_per_doc
    if not tokens or tokens >= most:
        return cut
    text = check_item((query, ""), 0)
    served.check([text])
    frame = await asyncio.to_thread(served.model.tokenize, [text], dataclasses.replace(cut, counted=False))
    length = len(frame.rows[0].ids) + tokens  # the query and the special tokens of a pair, and the document
    if length - tokens >= most:  # the query leaves no room for a document: both are cut, as without max_tokens_per_doc
        return cut
    strategy = Truncation.ONLY_SECOND
    return dataclasses.replace(cut, long_text=LongText.TRUNCATE, strategy=strategy, max_length=min(length, most))


def _text(item: str | Document) -> str:
    return item if isinstance(item, str) else item.text


def _shown(document: str | Document) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document.model_dump()
