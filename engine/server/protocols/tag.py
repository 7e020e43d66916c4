"""``/tag``: the entities of texts, in the form of transformers' token classification pipeline."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, RootModel

from ...tasks.token_classifier import TokenClassifier
from ..batcher import Form
from ..models import Ability, Models, ServedModel
from .calls import Name, RequestFields, check_size


class TagParameters(RequestFields):
    """The keywords of the pipeline."""

    aggregation_strategy: str | None = None
    ignore_labels: list[str] | None = None
    stride: int | None = None


class TagRequest(RequestFields):
    """A text or several, and the keywords of the pipeline."""

    inputs: str | Annotated[list[str], Field(min_length=1)] = Field(description="give a text, or a list of texts")
    parameters: TagParameters | None = None
    model: Name = None


class TagResponse(RootModel[list[dict[str, Any]] | list[list[dict[str, Any]]]]):
    """The entities of a text, or a list of these for a list."""


async def tag(models: Models, request: TagRequest) -> Any:
    """Find the entities of a text, or of each of several."""
    served = models.find(request.model, Ability.TAG)
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    given = request.parameters.model_dump(exclude_none=True) if request.parameters else {}
    found = await tag_texts(served, texts, given)
    return found[0] if isinstance(request.inputs, str) else found


async def tag_texts(served: ServedModel, texts: list[str], given: dict[str, Any]) -> list[Any]:
    """Return the entities of each text; without ``aggregation_strategy`` tokens become entities by "simple"."""
    check_size(len(texts), served.options.max_batch)
    assert isinstance(served.clf, TokenClassifier)
    tagging = served.clf.parse({"aggregation_strategy": "simple", **given})  # type: ignore[typeddict-item]
    return (await served.run(tagging.check(texts), Form(call=tagging))).results
