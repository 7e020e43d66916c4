"""Documents ranked by their scores for a query, and scores of pairs, as sentence-transformers' ``CrossEncoder`` gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np

from ..errors import InputError, OptionError, check_integer, shown
from ..model import Model
from ..text.inputs import Text, check_flag, check_string, collection
from ..text.outputs import CallOptions, Floats, Function, activation, apply
from ..text.thresholds import MULTI_LABEL

Ranked: TypeAlias = "dict[str, Any]"  # {"corpus_id": int, "score": float, "text": str}, the last if it was asked for


class PairArguments(TypedDict, total=False):
    """Keywords of ``CrossEncoder.predict`` and ``CrossEncoder.rank``, and ``function_to_apply``."""

    function_to_apply: str | None
    activation_fn: Any
    apply_softmax: bool | None
    convert_to_numpy: bool
    convert_to_tensor: bool
    batch_size: int | None
    num_workers: int | None
    show_progress_bar: bool | None
    prompt: None
    prompt_name: None
    device: None
    pool: None
    chunk_size: None


Pair: TypeAlias = "tuple[str, str] | list[str] | Mapping[str, str]"

# Keywords of CrossEncoder that only None is taken for, and the way out.
_ELSEWHERE = {
    "prompt": "put it before each query",
    "prompt_name": "put the prompt before each query",
    "device": "give it to from_pretrained",
    "pool": "give the pairs to fusedbert score --on ray, or start processes that load the model themselves",
    "chunk_size": "it is for several processes: leave it out",
}


def rank(
    model: Model,
    query: Any,
    documents: Any,
    top_k: int | None,
    return_documents: bool,
    label: str | int | None,
    arguments: PairArguments,
) -> list[Ranked]:
    """Rank documents, as ``Classifier.rank`` describes."""
    options = RankOptions.of(model, label, arguments)
    top_k = check_top(top_k)
    texts = check_documents(query, documents)
    model.keep([query])
    scores = options.results(model.logits(texts), model.labels)
    return ranking(scores, texts, top_k, return_documents)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RankOptions(CallOptions):
    """The checked options of a ranking, and the way from logits to scores."""

    column: int  # of the score

    @classmethod
    def of(cls, model: Model, label: str | int | None, arguments: PairArguments) -> RankOptions:
        """Check the options of a ranking against the model.

        Raises:
            OptionError: The model gives no score to rank by, or an option is not valid.
        """
        column = _column(model, label)
        function = _function(model, arguments, ranks=True)
        return cls(function=function, column=column)

    def results(self, logits: Floats, labels: tuple[str, ...]) -> list[Any]:
        """Return the score of each document from its logits ``[n, labels]``."""
        scores: list[Any] = apply(self.function, logits)[:, self.column].tolist()
        return scores


def ranking(scores: Iterable[float], texts: Iterable[Text], top_k: int | None, return_documents: bool) -> list[Ranked]:
    """Return the documents of ``texts``, the best first; those of equal scores in their order."""
    found: list[Ranked] = [
        {"corpus_id": text.index, "score": score, "text": text.pair or ""}
        if return_documents
        else {"corpus_id": text.index, "score": score}
        for score, text in zip(scores, texts, strict=True)
    ]
    return sorted(found, key=lambda each: each["score"], reverse=True)[:top_k]


def predict_pairs(model: Model, pairs: Any, arguments: PairArguments) -> Any:
    """Score pairs, as ``Classifier.predict_pairs`` describes."""
    function = _function(model, arguments, ranks=False)
    texts, single = _check_pairs(pairs)
    scores = apply(function, model.logits(texts))  # [n, labels]
    found = scores[:, 0] if scores.shape[1] == 1 else scores
    return found[0] if single else found


def check_top(top_k: Any) -> int | None:
    """Return ``top_k`` as a number, None for all documents; OptionError if it is neither."""
    top_k = top_k.item() if isinstance(top_k, np.generic) else top_k
    check_integer("top_k", top_k, optional=True)
    return cast("int | None", top_k)


def check_documents(query: Any, documents: Any) -> list[Text]:
    """Return the pairs of a query and its documents.

    Raises:
        InputError: The query is not a text, ``documents`` is not a collection, or a document is not a text.
    """
    check_string(query, "the query")
    found = collection(documents)
    if found is None:
        raise InputError(f"expected a list of documents, found {type(documents).__name__}: put one into a list, [document]")
    texts = []
    for index, document in enumerate(found):
        check_string(document, "document", index)
        texts.append(Text(text=query, pair=document, index=index))
    return texts


def _check_pairs(pairs: Any) -> tuple[list[Text], bool]:
    """Return the pairs as texts, and whether they are a single pair."""
    if isinstance(pairs, Mapping) or (
        isinstance(pairs, (tuple, list)) and pairs and all(isinstance(each, str) for each in pairs)
    ):
        return [_check_pair(pairs, 0)], True
    if isinstance(pairs, np.ndarray) and pairs.ndim < 3:
        if pairs.ndim == 1 and pairs.size and all(isinstance(each, str) for each in pairs):
            return [_check_pair(pairs.tolist(), 0)], True
        pairs = pairs.tolist()  # the rows of a table of two columns
    found = collection(pairs)
    if found is None:
        raise InputError(f"expected pairs of texts, found {type(pairs).__name__}: give [(query, document), ...]")
    return [_check_pair(pair, index) for index, pair in enumerate(found)], False


def _check_pair(pair: Any, index: int) -> Text:
    if isinstance(pair, Mapping):
        if pair.keys() != {"text", "text_pair"}:
            raise InputError(f"pair {index} is a dict with keys {shown(list(pair))[1:-1]}: expected 'text' and 'text_pair'")
        pair = (pair["text"], pair["text_pair"])
    if not isinstance(pair, (tuple, list, np.ndarray)):
        raise InputError(f"pair {index} is of type {type(pair).__name__}: a pair is (query, document)")
    if len(pair) != 2:
        raise InputError(f"pair {index} is a {type(pair).__name__} of {len(pair)}: a pair is (query, document)")
    first, second = (check_string(each, "pair", index) for each in pair)
    return Text(text=first, pair=second, index=index)


def _column(model: Model, label: str | int | None) -> int:
    """Return the column of the logits that a ranking is by."""
    names, count = model.labels, len(model.labels)
    if model.problem_type == MULTI_LABEL and count > 1:
        way_out = "give predict_pairs the pairs and sort by one of its columns"
        raise OptionError(
            f"rank takes a model with one label, or with two that exclude each other, and this is multi-label: {way_out}"
        )
    if count > 2 or (model.problem_type == "regression" and count > 1):
        way_out = "give predict_pairs the pairs and sort by one of its columns"
        raise OptionError(f"rank takes a model with one or two labels, and this one has {count}: {way_out}")
    label = label.item() if isinstance(label, np.generic) else label
    if label is None:
        return count - 1
    if isinstance(label, str) and names.count(label) == 1:
        return names.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < count:
        return label
    raise OptionError(f"label is {shown(label)}: give one of {shown(list(names))}, or its number from 0 to {count - 1}")


def _function(model: Model, arguments: PairArguments, *, ranks: bool) -> Function:
    """Check the keywords of ``CrossEncoder``, and return the function from logits to scores."""
    given = cast("dict[str, Any]", arguments)
    for name, value in given.items():
        if name not in PairArguments.__annotations__:
            raise TypeError(f"{'rank' if ranks else 'predict_pairs'} got an unexpected keyword argument {name!r}")
        if name in _ELSEWHERE and value is not None:
            raise OptionError(f"{name} is an argument of CrossEncoder that is not taken here: {_ELSEWHERE[name]}")
    check_integer("batch_size", given.get("batch_size"), optional=True)  # a score does not depend on these
    check_integer("num_workers", given.get("num_workers"), 0, optional=True)
    for name in ("show_progress_bar", "apply_softmax", "convert_to_numpy", "convert_to_tensor"):
        check_flag(name, given.get(name))
    if not ranks and (given.get("convert_to_tensor") or given.get("convert_to_numpy") is False):
        raise OptionError("scores are a NumPy array, whatever convert_to_numpy and convert_to_tensor say: use torch.from_numpy")
    if arguments.get("activation_fn") is not None and arguments.get("function_to_apply") is not None:
        raise OptionError("activation_fn and function_to_apply are both given: leave one out")
    count = len(model.labels)
    function = _chosen(model, arguments, ranks)
    if arguments.get("apply_softmax") and count > 1 and not ranks:
        if function is Function.SIGMOID:
            raise OptionError("apply_softmax=True would take the softmax of sigmoids: give function_to_apply='softmax'")
        if function is Function.SOFTMAX and arguments.get("function_to_apply") is None:  # CrossEncoder takes it twice
            raise OptionError("apply_softmax=True would take the softmax of a softmax, which config.json states: leave it out")
        return Function.SOFTMAX
    return function


def _chosen(model: Model, arguments: PairArguments, ranks: bool) -> Function:
    count = len(model.labels)
    if (module := arguments.get("activation_fn")) is not None:
        return activation(module)
    if (name := arguments.get("function_to_apply")) is not None:
        return Function.choose(name, model.problem_type, count)
    if ranks and count == 2:
        return Function.SOFTMAX
    if count == 1 and model.problem_type != "regression":
        return model.function
    # CrossEncoder does not read problem_type, and has no softmax by default
    return model.activation or (Function.SIGMOID if count == 1 else Function.NONE)
