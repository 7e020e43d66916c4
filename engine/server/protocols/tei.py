"""text-embeddings-inference: ``/predict``, and ``/rerank`` with ``texts``.

https://huggingface.github.io/text-embeddings-inference, its OpenAPI schema.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, RootModel

from ...text.call import CallArguments
from ..batcher import Form
from ..models import Ability, Models, ServedModel
from .calls import Direction, Name, RequestFields, check_size, cut_of, rank_pairs, texts_of

Input = Annotated[list[str], Field(min_length=1, max_length=2)]
_INPUTS = "give a text, a pair [a, b], or a batch of these, [[a], [b], [c, d]]"


class PredictRequest(RequestFields):
    """Texts to classify; a batch has each text or pair in a list, since two texts are a pair."""

    inputs: str | Input | Annotated[list[Input], Field(min_length=1)] = Field(description=_INPUTS)
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    model: Name = None


class Prediction(BaseModel):
    """A label and its score."""

    label: str
    score: float


class PredictResponse(RootModel[list[Prediction] | list[list[Prediction]] | dict[str, Any]]):
    """The labels of a text, the best first, or a list of these for a batch; by head of a model with several."""


async def predict(models: Models, request: PredictRequest) -> Any:
    """Classify a text, a pair, or a batch of these: labels and scores, the best first."""
    served = models.find(request.model, Ability.PREDICT)
    inputs: Any = request.inputs
    single = isinstance(inputs, str) or isinstance(inputs[0], str)
    items = [inputs] if single else inputs
    check_size(len(items), served.options.max_batch)
    form = _form(served, request.truncate, request.truncation_direction, request.raw_scores)
    found = (await served.run(texts_of(items), form)).results
    return found[0] if single else found


def _form(served: ServedModel, truncate: bool | None, side: str | None, raw: bool) -> Form:
    arguments: CallArguments = {"top_k": None}
    if raw:
        arguments["function_to_apply"] = "none"
    if truncate:
        arguments["truncation"] = True
    if side is not None:
        arguments["truncation_side"] = side.lower()
    return Form(call=served.model.call(arguments))


class RerankRequest(RequestFields):
    """A query, and the texts to order by how well they answer it."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    model: Name = None


class Rank(BaseModel):
    """A text's place in the request, its score, and the text if it was asked for."""

    index: int
    score: float
    text: str | None = None


class RerankResponse(RootModel[list[Rank]]):
    """The texts, the best first."""


async def rerank(models: Models, request: RerankRequest) -> list[dict[str, Any]]:
    """Order texts by their scores for a query."""
    served = models.find(request.model, Ability.RANK)
    check_size(len(request.texts), served.options.max_documents)
    cut = cut_of(served, request.truncate, request.truncation_direction)
    pairs = [(request.query, text) for text in request.texts]
    order, scores, _ = await rank_pairs(served, pairs, raw=request.raw_scores, cut=cut)
    return [
        {"index": index, "score": scores[index], **({"text": request.texts[index]} if request.return_text else {})}
        for index in order
    ]
