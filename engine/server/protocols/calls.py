"""Calls of a model from the fields of a request, which the protocols share."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...tasks.rank import RankOptions
from ...text.call import CallArguments
from ...text.inputs import Cut, LongText, Text, check_item
from ...text.outputs import CallOptions, Floats, apply
from ..batcher import Answers, Form
from ..http.refusals import RefusedError
from ..models import ServedModel

Direction = Literal["Left", "Right", "left", "right"]
Name = Annotated[str | None, Field(description="The model, by the name that it is served as.")]


class RequestFields(BaseModel):
    """The fields of a request; a value of another type is refused, not converted."""

    model_config = ConfigDict(strict=True, extra="forbid")


class PromptFields(RequestFields):
    """The fields that vLLM's requests share, and infinity's ``raw_scores``."""

    model: Name = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = Field(
        default=None,
        description="Tokens at which a text is cut; -1 for the model's maximum. Without it a longer one is refused.",
    )
    truncation_side: Literal["left", "right"] | None = None
    use_activation: bool | None = Field(default=None, description="False for logits.")
    raw_scores: bool | None = Field(default=None, description="True for logits.")
    add_special_tokens: Literal[True] | None = None
    # Nothing here depends on these.
    user: str | None = None
    request_id: str | None = None
    cache_salt: str | None = None
    priority: int | None = None
    padding: bool | str | None = None

    @property
    def raw(self) -> bool:
        """True if logits are asked for."""
        return bool(self.raw_scores) or self.use_activation is False


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0

    @staticmethod
    def of(tokens: int) -> dict[str, int]:
        """Return the entry ``usage`` of an answer."""
        return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probabilities(CallOptions):
    """A call whose results are the scores of all labels, in their order."""

    def results(self, logits: Floats, labels: tuple[str, ...]) -> list[Any]:
        """Return the scores of each text from its logits ``[n, labels]``."""
        rows: list[Any] = apply(self.function, logits).tolist()
        return rows


def check_size(found: int, most: int, noun: str = "batch size") -> None:
    """Refuse a request of too many texts."""
    if found > most:
        raise RefusedError(413, f"{noun} {found} > maximum allowed {noun} {most}")


def cut_of(served: ServedModel, truncate: bool | None, side: str | None = None, max_length: int | None = None) -> Cut:
    """Return how long texts are cut: as the server was started, unless the request says that they are."""
    arguments: CallArguments = {}
    if truncate:
        arguments["truncation"] = True
    if side is not None:
        arguments["truncation_side"] = side.lower()
    if max_length is not None and max_length < served.clf.max_length:
        arguments["max_length"] = max_length
    return served.model.call(arguments).cut


def prompt_cut(served: ServedModel, fields: PromptFields, truncate: bool | None = None) -> Cut:
    """Return how the texts of a request of vLLM's form are cut; ``truncate`` if it says nothing."""
    tokens = fields.truncate_prompt_tokens
    most = tokens if tokens is not None and tokens > 0 else None
    return cut_of(served, truncate if tokens is None else True, fields.truncation_side, most)


def cuts(served: ServedModel) -> bool:
    """Return whether a protocol whose texts are always cut has them cut here; not where they are read in windows."""
    return served.model.options.long_text is not LongText.WINDOW


def texts_of(items: Sequence[Any]) -> list[Text]:
    """Check texts; a list of one or two is a text or a pair."""
    plain = [each if not isinstance(each, list) else each[0] if len(each) == 1 else tuple(each) for each in items]
    return [check_item(each, index) for index, each in enumerate(plain)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Relevance(RankOptions):
    """A call whose results are the score of each pair, and a margin that orders those which are rounded to the same."""

    def results(self, logits: Floats, labels: tuple[str, ...]) -> list[Any]:
        """Return the score and the margin of each pair from its logits ``[n, labels]``."""
        own = logits[:, self.column]
        margins = 2.0 * own - logits.sum(axis=1)  # of two labels the difference; of one the logit
        return list(zip(RankOptions.results(self, logits, labels), margins.tolist(), strict=True))


async def rank_pairs(
    served: ServedModel, pairs: Sequence[tuple[str, str]], *, raw: bool, cut: Cut
) -> tuple[list[int], list[float], int]:
    """Return the places of pairs, the best first, the scores of all from 0 to 1 or as logits, and the tokens that were read."""
    function = "none" if raw else "sigmoid" if len(served.model.labels) == 1 else "softmax"
    options = Relevance.of(served.model, None, {"function_to_apply": function})
    texts = [check_item(pair, index) for index, pair in enumerate(pairs)]
    found = await served.run(texts, Form(call=dataclasses.replace(options, cut=cut)))
    order = sorted(range(len(pairs)), key=found.results.__getitem__, reverse=True)  # of equal ones in their order
    return order, [score for score, _ in found.results], found.tokens


async def run_pairs(served: ServedModel, pairs: Sequence[tuple[str, str]], function: str | None, cut: Cut) -> Answers:
    """Return a score for each pair of texts; ``function`` from logits to scores, None for the model's own."""
    options = RankOptions.of(served.model, None, {"function_to_apply": function})
    texts = [check_item(pair, index) for index, pair in enumerate(pairs)]
    return await served.run(texts, Form(call=dataclasses.replace(options, cut=cut)))


def envelope(prefix: str, served: ServedModel, data: list[Any], tokens: int) -> dict[str, Any]:
    """Return an answer in OpenAI's form."""
    identity, now = f"{prefix}-{uuid.uuid4().hex}", int(time.time())
    usage = Usage.of(tokens)
    return {"id": identity, "object": "list", "created": now, "model": served.name, "data": data, "usage": usage}
