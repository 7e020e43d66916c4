"""The hosted inference API of Hugging Face, at ``/``, as ``huggingface_hub.InferenceClient`` speaks it to a URL.

https://huggingface.co/docs/inference-providers/tasks/text-classification and token-classification.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, RootModel

from ..batcher import Form
from ..http.refusals import RefusedError
from ..models import Ability, Models, ServedModel
from .calls import Name, RequestFields, check_size, cuts, texts_of
from .tag import tag_texts
from .tei import Prediction


class Pair(RequestFields):
    """A text and a second one."""

    text: str
    text_pair: str | None = None


class Parameters(RequestFields):
    """The keywords of transformers' pipelines."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: str | None = None
    truncation: bool | None = None
    aggregation_strategy: str | None = None
    ignore_labels: list[str] | None = None
    stride: int | None = None


class HostedRequest(RequestFields):
    """A text or several, and the keywords of the pipeline."""

    inputs: str | Pair | Annotated[list[str | Pair], Field(min_length=1)] = Field(
        description='give a text, {"text", "text_pair"}, or a list of these'
    )
    parameters: Parameters | None = None
    options: dict[str, Any] | None = None  # of the service that it comes from: waiting for a model, its cache
    model: Name = None


class HostedResponse(RootModel[list[list[Prediction]] | list[dict[str, Any]] | list[list[dict[str, Any]]]]):
    """The labels of each text, the best first; of a token classifier the entities of a text."""


async def infer(models: Models, request: HostedRequest) -> Any:
    """Classify texts, or find their entities if the model labels tokens, as Hugging Face's hosted API."""
    tagger = _tagger(models, request.model)
    parameters = request.parameters or Parameters()
    inputs: Any = request.inputs
    items = inputs if isinstance(inputs, list) else [inputs]
    given = parameters.model_dump(exclude_none=True)
    if tagger is not None:
        found = await tag_texts(tagger, [_text(each) for each in items], given)
        return found if isinstance(inputs, list) else found[0]
    served = models.find(request.model, Ability.PREDICT)
    if ":" not in served.name and Ability.CLASSIFY not in served.abilities:
        raise RefusedError(422, f"{served.name} has several heads: give the model one of {', '.join(models.names[1:])}")
    for name in ("aggregation_strategy", "ignore_labels", "stride"):
        if name in given:
            raise RefusedError(422, f"parameters: {name} is for models that label tokens, and {served.name} labels texts")
    check_size(len(items), served.options.max_batch)
    arguments: dict[str, Any] = {"top_k": None, "truncation": cuts(served) or None} | given
    texts = texts_of([each.model_dump() if isinstance(each, Pair) else each for each in items])
    form = Form(call=served.model.call(arguments))  # type: ignore[arg-type]
    return (await served.run(texts, form)).results


def _tagger(models: Models, name: str | None) -> ServedModel | None:
    """Return the token classifier that a request is for; None if it is for a classifier of texts."""
    try:
        models.find(name, Ability.PREDICT)
    except RefusedError:
        return models.find(name, Ability.TAG)
    return None


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    raise RefusedError(422, "inputs: a token classifier reads single texts, not pairs")
