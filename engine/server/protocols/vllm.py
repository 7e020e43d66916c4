"""vLLM's ``/classify`` and ``/score``, in OpenAI's form.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from ...text.outputs import Function
from ..batcher import Form
from ..http.refusals import RefusedError
from ..models import Ability, Models
from .calls import Probabilities, PromptFields, Usage, check_size, envelope, prompt_cut, run_pairs, texts_of

Texts = str | Annotated[list[str], Field(min_length=1)]
_TEXTS = "give a text, or a list of texts"


class ClassifyRequest(PromptFields):
    """Texts to classify."""

    input: Texts = Field(description=_TEXTS)


class Classification(BaseModel):
    """The likeliest label of a text, and the probabilities of all in their order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyResponse(BaseModel):
    """A classification of each text."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Classification]
    usage: Usage


async def classify(models: Models, request: ClassifyRequest) -> dict[str, Any]:
    """Classify a text or several: the likeliest label of each, and the probabilities of all."""
    served = models.find(request.model, Ability.CLASSIFY)
    texts = [request.input] if isinstance(request.input, str) else request.input
    check_size(len(texts), served.options.max_batch)
    function = Function.NONE if request.raw else served.model.function
    form = Form(call=Probabilities(function=function, cut=prompt_cut(served, request)))
    answers = await served.run(texts_of(texts), form)
    labels = served.model.labels
    data = [
        {"index": index, "label": labels[row.index(max(row))], "probs": row, "num_classes": len(row)}
        for index, row in enumerate(answers.results)
    ]
    return envelope("classify", served, data, answers.tokens)


class ScoreRequest(PromptFields):
    """Pairs to score: a text with each of several, or the texts of two lists of one length; vLLM has four names for them."""

    text_1: Texts | None = Field(default=None, description=_TEXTS)
    text_2: Texts | None = Field(default=None, description=_TEXTS)
    data_1: Texts | None = Field(default=None, description=_TEXTS)
    data_2: Texts | None = Field(default=None, description=_TEXTS)
    queries: Texts | None = Field(default=None, description=_TEXTS)
    documents: Texts | None = Field(default=None, description=_TEXTS)
    items: Texts | None = Field(default=None, description=_TEXTS)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the pairs; RefusedError if there are none, or those of two names."""
        given = [name for name in _SIDES if getattr(self, name) is not None]
        if tuple(given) not in _NAMES:
            raise RefusedError(422, f"found {', '.join(given) or 'no texts'}: give text_1 and text_2")
        first, second = ([value] if isinstance(value := getattr(self, name), str) else value for name in given)
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise RefusedError(422, f"{given[0]} has {len(first)} texts, and {given[1]} {len(second)}: give one, or as many")
        return list(zip(first, second, strict=True))


_NAMES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))
_SIDES = tuple(dict.fromkeys(name for names in _NAMES for name in names))


class Score(BaseModel):
    """The score of a pair."""

    index: int
    object: str = "score"
    score: float


class ScoreResponse(BaseModel):
    """A score for each pair."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Score]
    usage: Usage


async def score(models: Models, request: ScoreRequest) -> dict[str, Any]:
    """Score pairs as ``Classifier.rank`` does, by the activation that the model states."""
    served = models.find(request.model, Ability.RANK)
    pairs = request.pairs()
    check_size(len(pairs), served.options.max_documents)
    function = "none" if request.raw else None
    answers = await run_pairs(served, pairs, function, prompt_cut(served, request))
    data = [{"index": index, "object": "score", "score": each} for index, each in enumerate(answers.results)]
    return envelope("score", served, data, answers.tokens)
